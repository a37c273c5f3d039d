// The filter of the gallery, links into it, and printing. The address keeps the filter.
(() => {
  const all = (selector) => [...document.querySelectorAll(selector)];
  const bar = document.querySelector(".bar");
  const buttons = all("button[data-axis]");
  const cards = all(".card");
  const figures = all("figure");
  const sections = all("section");
  const noMatch = document.querySelector(".no-match");
  const single = document.body.matches(".single"); // one notebook: its section is all there is
  const firstKind = !single && document.querySelector("figure[data-kind=figure]") ? "figure" : "";
  const filter = { paper: "", kind: firstKind }; // "" lets everything through

  const ofPaper = (element) =>
    !filter.paper || element.dataset.papers.split("|").includes(filter.paper);
  const matches = (element) =>
    ofPaper(element) && (!filter.kind || element.dataset.kind === filter.kind);

  function hasContent(section) {
    const empty = !section.querySelector("figure");
    const failed = section.querySelector(".failed");
    return empty || failed || section.querySelector("figure:not([hidden])");
  }

  function update() {
    for (const button of buttons) {
      const pressed = filter[button.dataset.axis] === button.value;
      button.setAttribute("aria-pressed", String(pressed));
    }
    for (const element of [...cards, ...figures]) element.hidden = !matches(element);
    for (const section of sections) section.hidden = !ofPaper(section) || !hasContent(section);
    const count = figures.filter((figure) => !figure.hidden).length;
    document.querySelector(".count").textContent = `${count} of ${figures.length} shown`;
    noMatch.hidden = count > 0 || !figures.length;
  }

  // "#paper=Multi-Sub&kind=table" sets the filter, "#all" clears it, and no address at all shows the
  // figures. Anything else is the id of an element: the filter stays as it is, unless it hides that
  // element.
  function readAddress() {
    const hash = location.hash.slice(1);
    const target = hash && document.getElementById(decodeURIComponent(hash));
    if (!target) {
      const query = new URLSearchParams(hash);
      filter.paper = query.get("paper") || "";
      filter.kind = query.get("kind") || (hash ? "" : firstKind);
    } else if (target.closest("[hidden]")) {
      filter.paper = "";
      filter.kind = "";
    }
    update();
    if (target) target.scrollIntoView({ behavior: "instant" });
  }

  function choose(axis, value) {
    filter[axis] = value;
    const query = new URLSearchParams(Object.entries(filter).filter(([, chosen]) => chosen));
    location.hash = String(query) || "all";
    update();
    if (scrollY > bar.offsetTop + 1) {
      document.querySelector(".overview").scrollIntoView({ behavior: "instant" });
    }
  }

  for (const button of buttons) {
    button.addEventListener("click", () => choose(button.dataset.axis, button.value));
  }
  noMatch.querySelector("button").addEventListener("click", () => {
    location.hash = "all";
    buttons[0].focus();
  });
  addEventListener("hashchange", readAddress);

  // The font size, in points, at which a table fits on an A4 page: our margins leave 516 points, and
  // a letter is at most 0.64 em wide. Text of more than 45 characters breaks into lines.
  function printSize(table) {
    const widths = [];
    for (const row of table.rows) {
      for (const cell of row.cells) {
        const letters = Math.min(cell.textContent.trim().length, 45);
        widths[cell.cellIndex] = Math.max(widths[cell.cellIndex] || 0, letters);
      }
    }
    const letters = widths.reduce((sum, width) => sum + width + 2, 0);
    return Math.min(9.5, 500 / 0.64 / letters);
  }
  for (const table of all(".scroll table")) {
    table.style.setProperty("--print-size", `${printSize(table).toFixed(1)}pt`);
  }

  let opened = []; // on paper nothing can be clicked: all details are open while printing
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    for (const element of opened) element.open = true;
  });
  addEventListener("afterprint", () => {
    for (const element of opened) element.open = false;
  });

  bar.hidden = false;
  readAddress();
})();
