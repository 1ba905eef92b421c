// A figure leads to itself at full size: a link, so that it works by key as well.
for (const image of document.querySelectorAll(".bd-article img")) {
  if (image.closest("a")) continue;
  const link = document.createElement("a");
  link.href = image.src;
  image.replaceWith(link);
  link.append(image);
}

// What scrolls in its own box can be reached by key, once the formulas stand.
addEventListener("load", async () => {
  await window.MathJax?.startup?.promise;
  for (const box of document.querySelectorAll(".bd-article :is(table, pre, mjx-container)"))
    if (box.scrollWidth > box.clientWidth) box.tabIndex = 0;
});

// The theme's search button and its folds are called by the words that they show.
const named = "button.search-button__button[aria-label], summary[aria-label]";
document.querySelectorAll(named).forEach((element) => element.removeAttribute("aria-label"));
