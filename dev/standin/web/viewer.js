// A slide with its tiles and annotations: drawing, terms, layers by user, review.
import { call, list, picture } from "./api.js";
import { element, say, unsay } from "./page.js";

const TILE = 256;
const KINDS = { Point: ["Point"], Line: ["LineString"], Polygon: ["Polygon"], Rectangle: ["Circle", true], Freehand: ["Polygon", false, true] };

// Cytomine counts from the bottom left, and so does a map: no coordinate has to be turned.
function tiles(slice, image, projection, extent) {
  const top = image.zoom;
  const resolutions = Array.from({ length: top + 1 }, (_, z) => 2 ** (top - z));
  const tileGrid = new ol.tilegrid.TileGrid({ extent, origin: [0, image.height], resolutions, tileSize: TILE });
  const load = async (z, x, y) => {
    const blob = await picture(`sliceinstance/${slice}/normalized-tile/zoom/${z}/tx/${x}/ty/${y}.jpg`);
    const bitmap = await createImageBitmap(blob);
    if (bitmap.width === TILE && bitmap.height === TILE) return bitmap;
    // Tiles at the border are smaller, and would be stretched.
    const canvas = document.createElement("canvas");
    canvas.width = canvas.height = TILE;
    canvas.getContext("2d").drawImage(bitmap, 0, 0);
    return canvas;
  };
  return new ol.layer.Tile({ source: new ol.source.ImageTile({ loader: load, tileGrid, projection, transition: 0 }), extent });
}

function look(colour, reviewed, chosen) {
  const stroke = new ol.style.Stroke({ color: colour, width: chosen ? 4 : 2, lineDash: reviewed ? [8, 6] : undefined });
  const fill = new ol.style.Fill({ color: `${colour}33` });
  return new ol.style.Style({ stroke, fill, image: new ol.style.Circle({ radius: chosen ? 8 : 6, stroke, fill }) });
}

export async function openSlide(main, user, projectId, imageId, chosenId) {
  const [project, image] = await Promise.all([call("GET", `project/${projectId}.json`), call("GET", `imageinstance/${imageId}.json`)]);
  const [slices, terms] = await Promise.all([
    list(`imageinstance/${imageId}/sliceinstance.json?max=0`),
    project.ontology ? list(`ontology/${project.ontology}/term.json?size=500`) : [],
  ]);
  const byTerm = new Map(terms.map((t) => [t.id, t]));
  const extent = [0, 0, image.width, image.height];
  const projection = new ol.proj.Projection({ code: "slide", units: "pixels", extent });
  const format = new ol.format.WKT();
  const source = new ol.source.Vector();
  const hidden = new Set();
  let annotations = [], chosen = chosenId, slice = slices[0].id, drawing, closed = false, last = "";

  // --- what is on the page
  const tools = element("div", { className: "tools", role: "toolbar", ariaLabel: "Drawing" });
  const term = element("select", { id: "term" }, element("option", { value: "" }, "no term"), ...terms.map((t) => element("option", { value: t.id }, t.name)));
  const channel = element("select", { id: "slice" }, ...slices.map((s) => element("option", { value: s.id }, s.channelName ?? `channel ${s.channel}`)));
  const box = element("div", { id: "map", tabIndex: 0, role: "application", ariaLabel: `Slide ${image.instanceFilename}: arrow keys move it, plus and minus zoom` });
  const layers = element("div", { id: "layers" }), items = element("ul", { id: "annotations" }), details = element("div", { id: "details" });
  const wkt = element("textarea", { id: "wkt", rows: 2, placeholder: "POLYGON ((100 100, 200 100, 200 200, 100 100))" });
  const add = element("button", { type: "button" }, "Add"), review = element("button", { type: "button" }), again = element("button", { type: "button" }, "Refresh");
  const section = (title, ...children) => element("section", {}, element("h2", {}, title), ...children);
  main.replaceChildren(element("div", { className: "viewer" },
    element("h1", {}, image.instanceFilename),
    element("div", {}, tools, box),
    element("aside", { ariaLabel: "Annotations" },
      section("Layers", layers),
      section("Annotations", again, items),
      section("Chosen", details),
      section("Review", review),
      section("Add by coordinates", element("label", { htmlFor: "wkt" }, "Geometry (WKT, pixels from the bottom left)"), wkt, add))));

  // --- the map
  const map = new ol.Map({
    target: box,
    layers: [],
    view: new ol.View({ projection, extent, constrainOnlyCenter: true, center: ol.extent.getCenter(extent), minResolution: 0.25, maxResolution: 2 ** image.zoom * 2, showFullExtent: true }),
  });
  const vector = new ol.layer.Vector({ source, style: (f) => (hidden.has(f.get("user")) ? null : look(f.get("colour"), f.get("reviewed"), f.getId() === chosen)) });
  const redraw = () => map.setLayers([tiles(slice, image, projection, extent), vector]);
  redraw();
  map.on("loadstart", () => { box.ariaBusy = "true"; });
  map.on("loadend", () => { box.ariaBusy = "false"; });
  map.getView().fit(extent);
  map.on("singleclick", (event) => {
    if (drawing) return;
    const hit = map.forEachFeatureAtPixel(event.pixel, (f) => f, { hitTolerance: 4 });
    choose(hit ? hit.getId() : 0);
  });

  // --- annotations
  const mine = () => image.inReview && image.reviewUser === user.id;
  const names = (a) => (a.term ?? []).map((id) => byTerm.get(id)?.name ?? `term ${id}`).join(", ") || "no term";
  const colour = (a) => byTerm.get(a.term?.[0])?.color ?? "#0b5cad";
  const kind = (a) => a.location.split(/[ (]/)[0].toLowerCase().replace("linestring", "line");

  async function refresh() {
    const found = await list(`annotation.json?image=${imageId}&showBasic=true&showMeta=true&showWKT=true&showTerm=true&showGIS=true&showUser=true&max=0`);
    if (closed) return;
    const text = JSON.stringify(found);
    // What has not changed is left alone: a list that is rebuilt loses the keyboard's place.
    if (text !== last) {
      last = text;
      annotations = found;
      draw();
    }
  }

  function draw() {
    source.clear(true);
    source.addFeatures(annotations.map((a) => {
      const feature = format.readFeature(a.location);
      feature.setId(a.id);
      feature.setProperties({ user: a.user, colour: colour(a), reviewed: a.reviewed });
      return feature;
    }));
    const people = new Map(annotations.map((a) => [a.user, a.name || a.creator || `user ${a.user}`]));
    people.set(user.id, user.name || user.username);
    layers.replaceChildren(...[...people].map(([id, name]) => {
      const count = annotations.filter((a) => a.user === id).length;
      const tick = element("input", { type: "checkbox", checked: !hidden.has(id) });
      tick.onchange = () => { if (tick.checked) hidden.delete(id); else hidden.add(id); draw(); };
      return element("label", {}, tick, ` ${name} (${count})`);
    }));
    const held = document.activeElement?.dataset?.annotation;
    items.replaceChildren(...annotations.filter((a) => !hidden.has(a.user)).map((a) => {
      const dot = element("span", { className: "dot" });
      dot.style.background = colour(a);
      const text = `${names(a)}: ${kind(a)}${a.reviewed ? ", accepted" : ""}`;
      const button = element("button", { type: "button", ariaPressed: String(a.id === chosen) }, dot, text);
      button.dataset.annotation = a.id;
      button.onclick = () => choose(a.id, true);
      return element("li", {}, button);
    }));
    if (held) items.querySelector(`[data-annotation="${held}"]`)?.focus();
    describe();
  }

  function choose(id, centre = false) {
    chosen = id;
    const feature = source.getFeatureById(id);
    if (feature && centre) map.getView().fit(feature.getGeometry().getExtent(), { maxZoom: 20, minResolution: 1, padding: [80, 80, 80, 80] });
    for (const button of items.querySelectorAll("button")) button.ariaPressed = String(Number(button.dataset.annotation) === chosen);
    vector.changed();
    describe();
  }

  function describe() {
    const a = annotations.find((one) => one.id === chosen);
    if (!a) return details.replaceChildren("None. Click on one, or take it from the list.");
    const act = (label, work) => {
      const button = element("button", { type: "button" }, label);
      button.onclick = () => guarded(work, label);
      return button;
    };
    // All data at once: upstream's call by the annotation's id hangs where the annotation has a term.
    const accept = act("Accept", () => call("POST", "reviewedannotation.json", {
      parentIdent: a.id, project: a.project, image: a.image, slice: a.slice, user: a.user, reviewUser: user.id, status: 1,
      location: a.location, geometryCompression: a.geometryCompression, terms: a.term ?? [] }));
    const reject = act("Reject", () => call("DELETE", `annotation/${a.id}/review.json`));
    accept.disabled = !mine() || a.reviewed;
    reject.disabled = !mine() || !a.reviewed;
    const change = element("select", { ariaLabel: "Term of the chosen annotation" }, element("option", { value: "" }, "give it a term…"), ...terms.map((t) => element("option", { value: t.id }, t.name)));
    change.onchange = () => change.value && guarded(() => call("POST", `annotation/${a.id}/term/${change.value}/clearBefore.json`, { userannotation: a.id, term: Number(change.value) }), "Term");
    const size = a.area ? `, ${Number(a.area).toFixed(0)} ${a.areaUnit ?? ""}` : "";
    const by = a.name || a.creator || `user ${a.user}`;
    details.replaceChildren(element("p", {}, `${names(a)}: ${kind(a)}${size}, by ${by}${a.reviewed ? ", accepted" : ""}`),
      element("div", { className: "tools" }, accept, reject, act("Delete", () => call("DELETE", `annotation/${a.id}.json`))), change);
  }

  async function guarded(work, label) {
    const telling = `${label}…`;
    say(telling);
    try {
      await work();
      await refresh();
      unsay(telling);
    } catch (error) {
      say(error.message, true);
    }
  }

  const store = (location) => guarded(() => call("POST", "annotation.json",
    { location, image: imageId, slice, project: projectId, term: term.value ? [Number(term.value)] : [] }), "Storing");

  function draft(name) {
    if (drawing) map.removeInteraction(drawing);
    drawing = undefined;
    for (const button of tools.querySelectorAll("button")) button.ariaPressed = String(button.textContent === name);
    if (!KINDS[name]) return say("");
    const [type, rectangle, freehand] = KINDS[name];
    drawing = new ol.interaction.Draw({ source: new ol.source.Vector(), type, freehand: Boolean(freehand), geometryFunction: rectangle ? ol.interaction.Draw.createBox() : undefined });
    drawing.on("drawend", (event) => store(format.writeGeometry(event.feature.getGeometry(), { decimals: 2 })));
    map.addInteraction(drawing);
    say(name === "Polygon" || name === "Line" ? "Click for each corner, double-click for the last." : "");
  }

  for (const name of ["Select", ...Object.keys(KINDS)]) {
    const button = element("button", { type: "button", ariaPressed: String(name === "Select") }, name);
    button.onclick = () => draft(name);
    tools.append(button);
  }
  tools.append(element("label", { htmlFor: "term" }, "Term"), term);
  if (slices.length > 1) tools.append(element("label", { htmlFor: "slice" }, "Channel"), channel);
  channel.onchange = () => { slice = Number(channel.value); redraw(); };
  add.onclick = () => { if (wkt.value.trim()) store(wkt.value.trim()); };
  again.onclick = () => guarded(async () => {}, "Refreshing");
  const showReview = () => {
    review.textContent = image.reviewed ? "The review of this image is closed"
      : !image.inReview ? "Start the review of this image"
        : mine() ? "The image is in review" : "The image is in someone else's review";
    review.disabled = image.inReview || image.reviewed;
  };
  review.onclick = () => guarded(async () => { Object.assign(image, (await call("POST", `imageinstance/${imageId}/review.json`, {})).imageinstance); showReview(); last = ""; }, "Starting the review");
  showReview();
  const escape = (event) => { if (event.key === "Escape") draft("Select"); };
  document.addEventListener("keydown", escape);
  await refresh();
  unsay("Loading…");
  // A page that nobody looks at asks for nothing.
  const timer = setInterval(() => { if (!document.hidden && !drawing?.getOverlay().getSource().getFeatures().length) refresh().catch(() => {}); }, 3000);
  if (chosen) choose(chosen, true);
  return () => { closed = true; clearInterval(timer); document.removeEventListener("keydown", escape); map.setTarget(null); };
}
