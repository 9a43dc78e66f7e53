// The hub's own choice of light or dark, made with the button on its pages.
try {
  const theme = localStorage.getItem("jupyterhub-bs-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Without storage the system's choice holds.
}
