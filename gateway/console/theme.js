// Sets the colours before anything is painted.
(() => {
  let theme = null;
  try {
    theme = localStorage.getItem("steading-theme");
  } catch {
    // Without storage the system's colours stay.
  }
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
})();
