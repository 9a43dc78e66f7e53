import { listen } from "./stream.js";

const MOST_LINES = 5000;
const box = document.getElementById("follow");
const log = document.getElementById("log");
const live = document.getElementById("live");

if (log) log.scrollTop = log.scrollHeight;

if (box && log) {
  box.parentElement.hidden = false;
  let stop = null;

  const add = (line) => {
    const atEnd = log.scrollTop + log.clientHeight >= log.scrollHeight - 20;
    log.append(`${line}\n`);
    while (log.childNodes.length > MOST_LINES) log.firstChild.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  };

  const follow = async () => {
    stop = new AbortController();
    const url = new URL(log.dataset.follow, location.href);
    url.search = new URLSearchParams({
      follow: "true",
      tail: document.getElementById("tail").value,
      pod: log.dataset.pod,
      container: log.dataset.container,
    });
    log.replaceChildren();
    document.getElementById("nothing")?.remove();
    live.textContent = "Following the log.";
    let last = "The connection ended.";
    try {
      const { status, message } = await listen(
        url,
        (event, data) => {
          if (event === "line") add(data);
          if (event === "end") last = "The log ended.";
          if (event === "fault") last = data.message;
        },
        stop.signal,
      );
      if (status !== 200) last = message ?? "The log cannot be followed.";
    } catch (error) {
      if (error.name === "AbortError") last = "";
    }
    live.textContent = last;
    box.checked = false;
  };

  box.addEventListener("change", () => (box.checked ? follow() : stop?.abort()));
}
