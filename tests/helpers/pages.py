"""Pages in a real browser, and everything that is wrong with them."""

import urllib.parse
from pathlib import Path

# What reaches beyond the right edge, unless it is in a box that scrolls or is decoration.
OVERFLOW = """() => {
  const page = document.scrollingElement;
  const edge = page.clientWidth + 1;
  const faults = [];
  if (page.scrollWidth > page.clientWidth) {
    faults.push(`scrolls: ${page.scrollWidth} of ${page.clientWidth} px`);
  }
  const mayOverflow = (element) => {
    for (let p = element; p && p !== document.body; p = p.parentElement) {
      if (p.getAttribute("aria-hidden") === "true") return true;
      const scrolls = ["auto", "scroll"].includes(getComputedStyle(p).overflowX);
      if (scrolls && p.getBoundingClientRect().right <= edge) return true;
    }
  };
  for (const e of document.body.querySelectorAll("*")) {
    if (e.getBoundingClientRect().right > edge && !mayOverflow(e)) {
      faults.push(`cut off: ${e.tagName.toLowerCase()}#${e.id}.${e.className}`);
    }
  }
  return faults.slice(0, 5);
}"""

# Images that did not load, or that have no description.
IMAGES = """async () => {
  for (let y = 0; y < document.body.scrollHeight; y += innerHeight) {
    scrollTo(0, y);
    await new Promise(requestAnimationFrame);
  }
  scrollTo(0, 0);
  const images = [...document.images];
  await Promise.all(images.map((image) => image.decode().catch(() => {})));
  const source = (image) => image.getAttribute("src").slice(0, 80);
  const missing = images.filter((image) => !image.naturalWidth);
  const undescribed = images.filter((image) => !image.alt && image.closest("figure, .card"));
  return [
    ...missing.map((image) => "missing image: " + source(image)),
    ...undescribed.map((image) => "image without words: " + source(image)),
  ];
}"""

# Text with a contrast below 4.5, the minimum of WCAG 2 (AA).
CONTRAST = """() => {
  const rgba = (color) => {
    const numbers = color.match(/[\\d.]+/g).map(Number);
    return numbers.length < 4 ? [...numbers, 1] : numbers;
  };
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const luminance = ([red, green, blue]) =>
    0.2126 * linear(red / 255) + 0.7152 * linear(green / 255) + 0.0722 * linear(blue / 255);
  const background = (element) => {
    if (!element) return [255, 255, 255, 1];
    const color = rgba(getComputedStyle(element).backgroundColor);
    return color[3] === 1 ? color : background(element.parentElement);
  };
  const faults = new Set();
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    const e = walk.currentNode.parentElement;
    const visible = walk.currentNode.data.trim() && e.getClientRects().length;
    if (!visible || e.closest(".thumb, script, style")) continue;
    const text = luminance(rgba(getComputedStyle(e).color));
    const behind = luminance(background(e));
    const ratio = (Math.max(text, behind) + 0.05) / (Math.min(text, behind) + 0.05);
    if (ratio < 4.5) {
      const name = `${e.tagName.toLowerCase()}.${e.className}`;
      faults.add(`contrast ${ratio.toFixed(1)}: ${name} ${e.textContent.slice(0, 30)}`);
    }
  }
  return [...faults].slice(0, 5);
}"""


def look(browser, path, width, contrast=True):
    """Open a file at a width in pixels; returns the page, and everything that is wrong with it."""
    page = browser.new_page(viewport={"width": width, "height": 844})
    faults = []

    def on_console(message):
        if message.type in ("error", "warning"):
            faults.append(f"console: {message.text}")

    def on_request(request):
        if not request.url.startswith(("file://", "data:", "blob:")):
            faults.append(f"outside: {request.url}")

    page.on("console", on_console)
    page.on("request", on_request)
    page.on("pageerror", lambda error: faults.append(f"script: {error}"))
    page.on("requestfailed", lambda request: faults.append(f"failed request: {request.url}"))
    page.goto(Path(path).resolve().as_uri(), wait_until="load")
    for check in [IMAGES, OVERFLOW] + [CONTRAST] * contrast:
        faults += page.evaluate(check)
    exists = "id => !!document.getElementById(decodeURIComponent(id))"
    for link in page.evaluate("[...document.querySelectorAll('a[href]')].map(a => a.href)"):
        address, _, anchor = link.partition("#")
        file = Path(urllib.parse.unquote(urllib.parse.urlsplit(address).path))
        if address.startswith("file:") and not file.exists():
            faults.append(f"dead link: {link}")
        same_page = address == page.url.partition("#")[0]
        if anchor and same_page and not page.evaluate(exists, anchor):
            faults.append(f"dead anchor: {link}")
    return page, faults
