// Measures the page that it stands in and tells the window around it what a reader would trip over.
const problems = [], cut = [], small = [];
addEventListener("error", (event) => problems.push(event.message || event.target.outerHTML), true);
for (const kind of ["error", "warn"]) console[kind] = (...said) => problems.push(said.join(" "));

function sizeOf(element) {
  const size = parseFloat(getComputedStyle(element).fontSize);
  if (!element.ownerSVGElement) return size;
  const matrix = element.getScreenCTM();
  return size * Math.hypot(matrix.a, matrix.b); // a turned text is as large as an upright one
}

function checkText(node) {
  const element = node.parentElement, range = document.createRange();
  if (!node.data.trim() || element.closest("title, style, script")) return 0;
  range.selectNodeContents(node);
  const box = range.getBoundingClientRect();
  if (!box.width) return 0; // on a page of another width
  const text = node.data.trim().slice(0, 40);
  if (sizeOf(element) < 11) small.push(`${text}: ${sizeOf(element).toFixed(1)} px`);
  if (box.left < 0 || box.right > innerWidth) cut.push(`${text}: beyond the page`);
  for (let around = element; around; around = around.parentElement) {
    const clips = getComputedStyle(around).overflowX !== "visible", edge = around.getBoundingClientRect();
    const drawn = around.tagName === "svg"; // what leaves a chart covers its neighbours
    if ((clips || drawn) && (box.left < edge.left - 1 || box.right > edge.right + 1))
      cut.push(`${text}: beyond its ${around.tagName}`);
  }
  return 1;
}

function checkElement(element) {
  if (element.ownerSVGElement) return;
  if (element.clientWidth && element.scrollWidth > element.clientWidth + 1)
    cut.push(`${element.tagName} "${element.textContent.trim().slice(0, 40)}": wider than its place`);
  const before = getComputedStyle(element, "::before");
  if (before.content !== "none" && before.content !== "normal" && parseFloat(before.fontSize) < 11)
    small.push(`${before.content}: ${before.fontSize}`);
}

addEventListener("load", () => {
  document.querySelectorAll("details").forEach((one) => (one.open = true));
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  const figures = document.querySelectorAll("figure").length;
  let count = 0, shown = 0;
  while (texts.nextNode()) count += checkText(texts.currentNode);
  document.querySelectorAll("*").forEach(checkElement);
  document.querySelectorAll("figure svg").forEach((one) => (shown += one.getBoundingClientRect().width > 0));
  parent.postMessage({ page: name, width: innerWidth, texts: count, charts: shown, figures, problems, cut, small }, "*");
});
