// Opens a page in Chromium at several widths, in light and dark, and says what a reader would stumble over.
// node check_page.mjs TOOLS CHROMIUM PAGE -> JSON on stdout: [{width, scheme, violations, overflow, hidden}]
//   violations: axe-core's findings; overflow: pixels by which the page is wider than the window; hidden: what the
//   keyboard reaches but does not show that it did.
import { createRequire } from "node:module";
import { readFileSync } from "node:fs";
import { pathToFileURL } from "node:url";

const [tools, executablePath, page_path] = process.argv.slice(2);
const require = createRequire(`${tools}/package.json`);
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");

// The page has no script of its own, and its policy lets none run; the check's own may.
async function check(browser, width, colorScheme, byKeyboard) {
  const context = await browser.newContext({ viewport: { width, height: 900 }, colorScheme, bypassCSP: true });
  const page = await context.newPage();
  await page.goto(pathToFileURL(page_path).href);
  await page.evaluate(() => document.querySelectorAll("details").forEach((one) => (one.open = true)));
  await page.evaluate(axe);
  const found = await page.evaluate(() => window.axe.run(document, { resultTypes: ["violations"] }));
  const violations = found.violations.map((one) => ({ id: one.id, help: one.help, where: one.nodes.map((n) => n.html).slice(0, 5) }));
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - window.innerWidth);
  const hidden = [];
  const reached = () => document.querySelectorAll("a, summary, [tabindex='0']").length;
  const stops = byKeyboard ? await page.evaluate(reached) : 0;
  for (let stop = 0; stop < stops; stop++) {
    await page.keyboard.press("Tab");
    const bare = await page.evaluate(() => {
      const at = document.activeElement;
      const box = at.getBoundingClientRect();
      const shown = getComputedStyle(at).outlineStyle !== "none" && box.right > 0 && box.width > 0;
      return shown ? null : at.outerHTML.slice(0, 100);
    });
    if (bare !== null) hidden.push(bare);
  }
  await context.close();
  return { width, scheme: colorScheme, violations, overflow, stops, hidden };
}

const browser = await chromium.launch({ executablePath, args: ["--no-sandbox"] });
const results = [];
for (const width of [400, 1280]) for (const scheme of ["light", "dark"]) results.push(await check(browser, width, scheme, width === 400 && scheme === "light"));
await browser.close();
console.log(JSON.stringify(results));
