// Places of the page: projects, a project's images, a slide.
import { account, call, list, login, logout, picture } from "./api.js";
import { element, say } from "./page.js";
import { openSlide } from "./viewer.js";

const main = document.getElementById("main");
let leave = () => {};
let user;

async function projects() {
  const found = await list("project.json?max=0");
  const cards = found.map((p) =>
    element("li", {}, element("a", { href: `#/project/${p.id}` }, p.name), element("p", {}, `${p.numberOfImages ?? 0} images, ${p.numberOfAnnotations ?? 0} annotations`)));
  main.replaceChildren(element("h1", {}, "Projects"), element("ul", { className: "cards" }, ...cards));
  say(found.length ? "" : "There is no project yet. Make one with the Python client, or tick a dataset at the next start.");
}

async function project(id) {
  const [own, images] = await Promise.all([call("GET", `project/${id}.json`), list(`project/${id}/imageinstance.json?max=0`)]);
  const cards = images.map((image) => {
    const thumb = element("img", { alt: "" });
    picture(`imageinstance/${image.id}/preview.png?maxSize=256`).then((blob) => {
      thumb.src = URL.createObjectURL(blob);
      thumb.onload = () => URL.revokeObjectURL(thumb.src);
    }).catch(() => { thumb.alt = "no preview"; });
    const text = `${image.width} × ${image.height} pixels, ${image.numberOfAnnotations} annotations`;
    return element("li", {}, thumb, element("a", { href: `#/project/${id}/image/${image.id}` }, image.instanceFilename), element("p", {}, text));
  });
  main.replaceChildren(element("h1", {}, own.name), element("ul", { className: "cards" }, ...cards));
  say(images.length ? "" : "This project has no images yet.");
}

async function show() {
  leave();
  leave = () => {};
  say("Loading…");
  const found = /^#\/project\/(\d+)(?:\/image\/(\d+)(?:\/annotation\/(\d+))?)?/.exec(location.hash);
  const place = document.getElementById("place");
  place.replaceChildren();
  try {
    if (found?.[2]) {
      place.append("› ", element("a", { href: `#/project/${found[1]}` }, "Images"));
      leave = await openSlide(main, user, Number(found[1]), Number(found[2]), Number(found[3] || 0));
    } else if (found) await project(Number(found[1]));
    else await projects();
    document.title = `${main.querySelector("h1")?.textContent ?? "Cytomine"} (stand-in)`;
  } catch (error) {
    main.replaceChildren();
    say(error.message, true);
  }
}

try {
  await login();
  let mine;
  [user, mine] = await Promise.all([call("GET", "user/current.json"), account()]);
  document.documentElement.lang = mine.attributes.locale[0];
  document.getElementById("who").textContent = user.name || user.username;
  const button = document.getElementById("leave");
  button.hidden = false;
  button.onclick = logout;
  window.addEventListener("hashchange", show);
  await show();
} catch (error) {
  say(error.message, true);
}
