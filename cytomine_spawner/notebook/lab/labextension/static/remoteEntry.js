// The launcher's card and the status bar's item, as a module federation container written by hand:
// JupyterLab loads this file, calls init() with the modules that it shares, then get().
(() => {
  "use strict";

  const NAME = "cytomine-spawner";
  const MODULES = [
    "@jupyterlab/apputils",
    "@jupyterlab/coreutils",
    "@jupyterlab/launcher",
    "@jupyterlab/services",
    "@jupyterlab/statusbar",
    "@jupyterlab/ui-components",
    "@lumino/polling",
    "@lumino/widgets",
  ];
  const OPEN = "cytomine:open";
  const CHANGING_MS = 5000;
  const QUIET_MS = 60000;
  const FRESH_MS = 10000;
  const OPEN_MS = 3000;
  const ICON =
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16"><rect width="16" height="16" rx="3" fill="#2c7bb6"/>' +
    '<circle cx="7" cy="7" r="3.6" fill="none" stroke="#fff" stroke-width="1.6"/>' +
    '<path d="m9.8 9.8 3 3" stroke="#fff" stroke-width="1.8" stroke-linecap="round"/></svg>';
  const UNKNOWN = {
    state: "state unknown",
    message: "The notebook's server does not say how Cytomine is.",
    url: null,
    page: null,
    changing: false,
  };

  let scope = null;

  async function shared(name) {
    const versions = Object.entries((scope && scope[name]) || {});
    if (!versions.length) {
      throw new Error(`${NAME}: this JupyterLab does not share ${name}; JupyterLab 4 is needed.`);
    }
    versions.sort(([a], [b]) => a.localeCompare(b, undefined, { numeric: true }));
    // A token is only the same one if its module is: what is in use already comes first.
    const [, entry] = versions.find(([, found]) => found.loaded) || versions[versions.length - 1];
    return (await entry.get())();
  }

  function plugin(lib) {
    const { ICommandPalette, Notification } = lib["@jupyterlab/apputils"];
    const { URLExt } = lib["@jupyterlab/coreutils"];
    const { ILauncher } = lib["@jupyterlab/launcher"];
    const { ServerConnection } = lib["@jupyterlab/services"];
    const { IStatusBar } = lib["@jupyterlab/statusbar"];
    const { LabIcon } = lib["@jupyterlab/ui-components"];
    const { Poll } = lib["@lumino/polling"];
    const { Widget } = lib["@lumino/widgets"];

    return {
      id: `${NAME}:stack`,
      description: "Opens Cytomine from the launcher and shows its state in the status bar.",
      autoStart: true,
      optional: [ILauncher, ICommandPalette, IStatusBar],
      activate: (app, launcher, palette, statusBar) => {
        const settings = app.serviceManager.serverSettings;
        const address = URLExt.join(settings.baseUrl, "cytomine/api/stack");
        let seen = { ...UNKNOWN, state: "…", message: "Asking how Cytomine is." };
        let seenAt = -Infinity;

        const button = document.createElement("button");
        button.type = "button";
        button.id = "cytomine-state";
        Object.assign(button.style, {
          background: "none",
          border: "0",
          color: "inherit",
          cursor: "pointer",
          font: "inherit",
          lineHeight: "24px",
          padding: "0 4px",
          whiteSpace: "nowrap",
        });
        button.addEventListener("click", () => void app.commands.execute(OPEN));

        function show(next) {
          seen = next;
          seenAt = Date.now();
          const text = `Cytomine: ${seen.state}`;
          // Unchanged text is left alone, so that a screen reader does not read it again.
          if (button.textContent !== text) {
            button.textContent = text;
          }
          const does = target() ? (seen.url ? "Opens Cytomine in a new tab." : "Opens its page at the hub.") : "";
          button.title = [seen.message, does].filter(Boolean).join(" ");
          app.commands.notifyCommandChanged(OPEN);
        }

        async function look() {
          try {
            const answer = await ServerConnection.makeRequest(address, { cache: "no-store" }, settings);
            if (!answer.ok) {
              throw new Error(`${address} answered ${answer.status}`);
            }
            show(await answer.json());
          } catch (error) {
            console.warn(`${NAME}: ${error}`);
            show(UNKNOWN);
          }
        }

        function target() {
          const to = seen.url || seen.page;
          try {
            const found = to && new URL(to, window.location.href);
            return found && /^https?:$/.test(found.protocol) ? found.href : null;
          } catch {
            return null;
          }
        }

        app.commands.addCommand(OPEN, {
          label: (args) => (args.isPalette ? "Open Cytomine" : "Cytomine"),
          caption: () => `Cytomine: ${seen.state}. ${seen.message}`,
          icon: new LabIcon({ name: `${NAME}:icon`, svgstr: ICON }),
          describedBy: { args: { type: "object", properties: { isPalette: { type: "boolean" } } } },
          execute: async () => {
            if (Date.now() - seenAt > FRESH_MS) {
              // Not for long: a browser opens a tab only soon after the click.
              await Promise.race([look(), new Promise((resolve) => setTimeout(resolve, OPEN_MS))]);
            }
            const to = target();
            if (to) {
              window.open(to, "_blank", "noopener,noreferrer");
            } else {
              Notification.warning(seen.message, { autoClose: 10000 });
            }
          },
        });
        if (launcher) {
          // Not the first: its icon would be the whole category's.
          launcher.add({ command: OPEN, category: "Other", rank: 10 });
        }
        if (palette) {
          palette.addItem({ command: OPEN, category: "Cytomine", args: { isPalette: true } });
        }
        if (!statusBar) {
          return;
        }
        show(seen);
        seenAt = -Infinity;
        const item = new Widget({ node: document.createElement("div") });
        item.node.append(button);
        statusBar.registerStatusItem(`${NAME}:state`, { item, align: "left", rank: 100 });

        let failures = 0;
        const poll = new Poll({
          name: `${NAME}:state`,
          standby: "when-hidden",
          linger: 0,
          frequency: { interval: QUIET_MS, backoff: false, max: QUIET_MS },
          factory: async () => {
            await look();
            const unknown = seen.state === UNKNOWN.state;
            const retry = Math.min(CHANGING_MS * 2 ** failures, QUIET_MS);
            failures = unknown ? failures + 1 : 0;
            const interval = seen.changing ? CHANGING_MS : unknown ? retry : QUIET_MS;
            poll.frequency = { interval, backoff: false, max: QUIET_MS };
          },
        });
        document.addEventListener("visibilitychange", () => {
          if (!document.hidden) {
            void poll.refresh();
          }
        });
      },
    };
  }

  window._JUPYTERLAB = window._JUPYTERLAB || {};
  window._JUPYTERLAB[NAME] = {
    init(modules) {
      scope = modules;
    },
    async get(module) {
      if (module !== "./extension") {
        throw new Error(`${NAME} has no module ${module}.`);
      }
      const loaded = await Promise.all(MODULES.map(shared));
      const found = plugin(Object.fromEntries(MODULES.map((name, i) => [name, loaded[i]])));
      return () => ({ __esModule: true, default: found });
    },
  };
})();
