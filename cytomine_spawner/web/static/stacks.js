import { listen, xsrf } from "./stream.js";

const main = document.getElementById("main");
const cards = document.getElementById("cards");
const empty = document.getElementById("empty");
const live = document.getElementById("live");
const said = document.getElementById("say");
const notice = document.getElementById("notice");
const lastSaid = new Map();
// While the page catches up after a long silence nothing of it is news to say.
let quiet = false;
let cursor = main.dataset.cursor;

// -- what changes -------------------------------------------------------------------------------------------

function say(name, sentence) {
  // Screen readers hear of a new state, not of each sentence on the way there.
  if (lastSaid.get(name) === sentence) return;
  lastSaid.set(name, sentence);
  if (!quiet) said.textContent = sentence;
}

function parse(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.firstElementChild;
}

function update(card, next) {
  const focused = card.contains(document.activeElement) ? document.activeElement : null;
  const parts = [...next.querySelectorAll("[data-part]")];
  for (const old of card.querySelectorAll("[data-part]")) {
    if (!parts.some((part) => part.dataset.part === old.dataset.part)) old.remove();
  }
  for (const part of parts) {
    const old = card.querySelector(`[data-part="${part.dataset.part}"]`);
    if (!old) {
      card.append(part);
    } else if (old.innerHTML !== part.innerHTML) {
      const details = old.querySelector("details");
      if (details) part.querySelector("details").open = details.open;
      old.replaceWith(part);
    }
  }
  if (focused && !document.contains(focused)) {
    // The same control if it is still there, else the card's heading: never the top of the page.
    const again = (focused.id && document.getElementById(focused.id)) || card.querySelector(".title");
    again.focus({ preventScroll: true });
  }
}

function show(data) {
  const next = parse(data.html);
  const card = cards.querySelector(`[data-stack="${CSS.escape(data.name)}"]`);
  if (card) {
    update(card, next);
  } else if (main.dataset.first === "yes") {
    cards.prepend(next);
  } else {
    return;
  }
  empty.hidden = true;
  say(data.name, data.say);
}

function remove(name) {
  const card = cards.querySelector(`[data-stack="${CSS.escape(name)}"]`);
  if (!card) return;
  const focused = card.contains(document.activeElement);
  const title = card.querySelector(".title").textContent;
  card.remove();
  empty.hidden = cards.children.length > 0;
  if (focused) main.focus({ preventScroll: true });
  say(name, `${title} is deleted.`);
}

function outage(message) {
  const place = document.getElementById("outage");
  place.replaceChildren();
  if (message) place.append(paragraph("alert alert-warn", message));
}

function paragraph(style, text) {
  const element = document.createElement("p");
  element.className = style;
  element.textContent = text;
  return element;
}

// -- going on to a stack that was asked for ------------------------------------------------------------------

let goes = 0;

function goOn() {
  const { target, stackName } = main.dataset;
  if (!target || goes || !document.getElementById(`${stackName}-open`)) return;
  document.querySelector("#opening .alert").textContent = "Cytomine is ready: on to the address that you opened.";
  // The cluster's entrance may still be learning that the stack is there, and would send us back at once.
  goes = setTimeout(() => location.replace(target + location.hash), 1000);
}

const hear = {
  stack: (data) => {
    show(data);
    goOn();
  },
  removed: (data) => remove(data.name),
  reset: (data) => {
    quiet = true;
    for (const card of [...cards.children]) {
      if (!data.names.includes(card.dataset.stack)) remove(card.dataset.stack);
    }
  },
  view: (data) => outage(data.message),
  cursor: (data) => {
    cursor = data.cursor;
    quiet = false;
  },
};

async function follow() {
  for (let pause = 1; ; ) {
    const url = new URL(main.dataset.updates, location.href);
    url.searchParams.set("since", cursor);
    const began = Date.now();
    try {
      live.textContent = "This page updates by itself.";
      const { status, message } = await listen(url, (event, data) => hear[event]?.(data));
      if (status === 401 || status === 403 || status === 404) {
        if (status !== 404) live.textContent = message ?? "You are logged out. Reload the page to log in again.";
        return;
      }
      if (status === 200) pause = 1;
    } catch {
      // Lost connections are said below.
    }
    if (Date.now() - began < 10_000) {
      live.textContent = "The connection is lost; trying again. You may reload the page.";
      pause = Math.min(pause * 2, 30);
    }
    await new Promise((resolve) => setTimeout(resolve, pause * 1000 * (0.5 + Math.random() / 2)));
  }
}

// -- what is clicked ----------------------------------------------------------------------------------------

document.addEventListener("submit", async (event) => {
  const form = event.target.closest("form[data-click]");
  if (!form) return;
  event.preventDefault();
  const button = form.querySelector("button");
  if (button.getAttribute("aria-disabled") === "true") return;
  // Not "disabled": that would take the focus away.
  button.setAttribute("aria-disabled", "true");
  let style = "alert alert-bad";
  let text = "The service does not answer. Try again in a minute.";
  try {
    const answer = await fetch(form.action, {
      method: "POST",
      body: new URLSearchParams(new FormData(form)),
      headers: { Accept: "application/json", "X-XSRFToken": xsrf() },
      redirect: "error",
    });
    text = (await answer.json()).message;
    if (answer.ok) style = "alert alert-good";
  } catch {
    // Said below.
  }
  notice.replaceChildren(paragraph(style, text));
  button.removeAttribute("aria-disabled");
});

// -- times --------------------------------------------------------------------------------------------------

const units = [
  ["year", 31536000],
  ["month", 2592000],
  ["day", 86400],
  ["hour", 3600],
  ["minute", 60],
];

function relative(milliseconds) {
  const seconds = Math.abs(milliseconds) / 1000;
  const [unit, length] = units.find(([, size]) => seconds >= size) ?? [];
  const count = unit && Math.floor(seconds / length);
  const text = unit ? `${count} ${unit}${count === 1 ? "" : "s"}` : "under a minute";
  return milliseconds > 0 ? `in ${text}` : `${text} ago`;
}

setInterval(() => {
  for (const time of document.querySelectorAll("time[data-relative]")) {
    const text = relative(Date.parse(time.dateTime) - Date.now());
    if (time.textContent !== text) time.textContent = text;
  }
}, 30_000);

// A reload must not say again what was done once.
if (new URLSearchParams(location.search).has("done")) {
  const url = new URL(location.href);
  url.searchParams.delete("done");
  url.searchParams.delete("stack");
  history.replaceState(null, "", url);
}

goOn();
follow();
