// A server, a browser, and people who use the keyboard alone.
import { chromium } from "playwright-core";
import axe from "axe-core";
import { spawn } from "node:child_process";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import assert from "node:assert/strict";

export const SECRET = "a secret for the browser test";
export const PHONE = { viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, isMobile: true, hasTouch: true };

/** Records as a file of JSON lines. */
export const lines = (out, name, rows) => {
  writeFileSync(join(out, name), rows.map((row) => JSON.stringify(row)).join("\n") + "\n");
  return join(out, name);
};

/** A running `gainsay annotate serve`. */
export const serve = async (binary, args) => {
  const env = { ...process.env, GAINSAY_ADMIN_SECRET: SECRET };
  const child = spawn(binary, ["annotate", "serve", "--port", "0", ...args], { env, stdio: ["ignore", "pipe", "inherit"] });
  const base = await new Promise((ready, failed) => {
    child.stdout.on("data", (text) => ready(/http:\S+/.exec(String(text))[0]));
    child.on("exit", (code) => failed(new Error(`the server ended with ${code}`)));
  });
  return { base, stop: () => child.removeAllListeners("exit").kill("SIGKILL") };
};

/** Chromium, and what its pages complained about. */
export const start = async () => {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || "/usr/bin/chromium",
    args: ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
      "--disable-component-update", "--disable-sync"] });
  const problems = [];
  const open = async (base, options = {}) => {
    const page = await (await browser.newContext({ viewport: { width: 1280, height: 860 }, ...options })).newPage();
    page.on("console", (m) => m.type() === "error" && problems.push(m.text()));
    page.on("pageerror", (e) => problems.push(String(e)));
    page.on("request", (r) => r.url().startsWith(base) || problems.push(`outside: ${r.url()}`));
    return page;
  };
  return { browser, problems, open };
};

/** Two frames: by then the page is drawn. People look first, then press. */
export const drawn = (page) => page.evaluate(() =>
  new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))));

/** Presses a key that leads to another page. */
export const press = async (page, key) => {
  await page.bringToFront();
  await drawn(page);
  try {
    await Promise.all([page.waitForNavigation({ timeout: 10000 }), page.keyboard.press(key)]);
  } catch (error) {
    const focus = await page.evaluate(() => document.activeElement.outerHTML.slice(0, 200));
    throw new Error(`${key} led nowhere at ${page.url()}; the focus is on ${focus}`, { cause: error });
  }
};

/** Presses Tab until the element has the focus. */
export const tabTo = async (page, selector) => {
  await page.bringToFront();
  for (let i = 0; i < 80; i++) {
    if (await page.evaluate((s) => document.activeElement.matches(s), selector)) return;
    await page.keyboard.press("Tab");
  }
  throw new Error(`Tab does not reach ${selector} at ${page.url()}`);
};

/** Follows a link with the keyboard. */
export const follow = async (page, path) => {
  await tabTo(page, `a[href$="${path}"]`);
  await press(page, "Enter");
};

/** Replaces what stands in a field. */
export const type = async (page, selector, text) => {
  await tabTo(page, selector);
  await page.keyboard.press("Control+a");
  await page.keyboard.type(text);
};

/** Signs the admin in. */
export const signIn = async (page, base) => {
  await page.goto(`${base}/admin`);
  await type(page, "#secret", SECRET);
  await press(page, "Enter");
};

/** Makes an invite link for somebody. */
export const invite = async (admin, name) => {
  await follow(admin, "/admin/people");
  await type(admin, "#name", name);
  await press(admin, "Enter");
  return admin.getAttribute("#invite-link", "href");
};

/** Opens an invite, reads the guidelines, and goes to the questions. */
export const begin = async (page, link) => {
  await page.goto(link);
  await press(page, "Enter");
  await press(page, "Enter");
};

/** Asks axe for what WCAG 2.2 AA forbids, and whether a phone must scroll sideways. */
export const accessible = async (page, name) => {
  await page.evaluate(axe.source);
  const found = await page.evaluate(() =>
    axe.run(document, { runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"] }));
  const told = found.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 120)).join(" | ")}`);
  assert.deepEqual(told, [], `${name} at ${page.url()}`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > innerWidth);
  assert.ok(!wide, `${name}: the page scrolls sideways`);
};
