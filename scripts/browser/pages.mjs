// Every other page in a real browser: rankings by keys, mouse and finger behind a proxy under a
// path, judgements, and axe on every page, light on a desktop and dark on a phone.
//   node pages.mjs BINARY OUT_DIR      (scripts/check-annotate installs what it needs)
import { createServer, request } from "node:http";
import { mkdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import assert from "node:assert/strict";
import { PHONE, accessible, begin, drawn, follow, invite, lines, press, serve, signIn, start } from "./common.mjs";

const [binary, out] = process.argv.slice(2);
rmSync(out, { recursive: true, force: true });
mkdirSync(out, { recursive: true });

const ANSWERS = [
  "Rest, drink enough, and see a doctor if the fever is above **39.5 °C** or lasts longer than three days.",
  "Take four different painkillers at once.",
  "Fever is part of how the body fights an infection.\n\n| temperature | what to do |\n|---|---|\n| below 39 °C | rest, drink |\n| above 40 °C | see a doctor today |",
  "I cannot talk about medicine.",
];
const asked = (i) => ({ schema: 1, id: `r${i}`, prompt: `What should I do about a fever? (${i + 1})`,
  completions: ANSWERS.map((text) => ({ text })) });
const prompts = lines(out, "prompts.jsonl", [0, 1, 2, 3].map(asked));

// A proxy that serves the app under /labels and keeps the prefix.
let target = "";
const proxy = createServer((from, to) => {
  const headers = { ...from.headers, "x-forwarded-for": from.socket.remoteAddress };
  const passed = request(target + from.url, { method: from.method, headers }, (answer) => {
    to.writeHead(answer.statusCode, answer.headers);
    answer.pipe(to);
  });
  passed.on("error", () => to.destroy());
  from.pipe(passed);
});
await new Promise((ready) => proxy.listen(0, "127.0.0.1", ready));
const site = `http://127.0.0.1:${proxy.address().port}`;
const ranks = await serve(binary, ["--in", prompts, "--task", "rank", "--db", join(out, "rank.db"), "--overlap", "3",
  "--public-url", `${site}/labels`]);
target = ranks.base;
const judged = await serve(binary, ["--in", prompts, "--task", "judge", "--db", join(out, "judge.db"), "--overlap", "9"]);
const { browser, problems, open } = await start();
const shot = (page, name) => page.screenshot({ path: join(out, `${name}.png`), fullPage: true });
const typed = (page) => page.$$eval(".rank input", (all) => all.sort((a, b) => a.name < b.name ? -1 : 1).map((i) => i.value));

/** Drags the first card below the third: with a mouse, or with a finger. */
const drag = async (page, touch) => {
  const middle = (n) => page.$eval(`.rankable[data-index="${n}"] .handle`, (el) => {
    const { x, y, width, height } = el.getBoundingClientRect();
    return { x: x + width / 2, y: y + height / 2 };
  });
  await page.evaluate(() => document.querySelector(".ranking").scrollIntoView());
  const from = await middle(0);
  const end = await page.$eval('.rankable[data-index="2"]', (el) => {
    const { top, height } = el.getBoundingClientRect();
    return top + height / 2 + 10;
  });
  const steps = Array.from({ length: 12 }, (_, i) => ({ x: from.x, y: from.y + (end - from.y) * (i + 1) / 12 }));
  if (!touch) {
    await page.mouse.move(from.x, from.y);
    await page.mouse.down();
    for (const { x, y } of steps) await page.mouse.move(x, y);
    await shot(page, "rank-dragged");
    return page.mouse.up();
  }
  const finger = await page.context().newCDPSession(page);
  const send = (type, points) => finger.send("Input.dispatchTouchEvent", { type, touchPoints: points });
  await send("touchStart", [from]);
  for (const step of steps) await send("touchMove", [step]);
  await send("touchEnd", []);
};

const rankings = async () => {
  const admin = await open(site);
  await signIn(admin, `${site}/labels`);
  const page = await open(site);
  await begin(page, await invite(admin, "Ann"));
  assert.ok(page.url().startsWith(`${site}/labels/work`), page.url());
  for (const key of ["3", "1", "=", "4", "Backspace", "=", "4"]) await page.keyboard.press(key);
  assert.deepEqual(await typed(page), ["2", "", "1", "2"], "3 > 1 = 4");
  await page.waitForTimeout(600);
  await page.reload();
  assert.deepEqual(await typed(page), ["2", "", "1", "2"], "the draft survived the reload");
  await page.keyboard.press("2");
  assert.match(await page.textContent(".order"), /3 {2}> {2}1 = 4 {2}> {2}2/);
  await shot(page, "rank-light");
  await accessible(page, "a ranking");
  await press(page, "Enter");
  await drag(page, false);
  assert.deepEqual(await typed(page), ["3", "1", "2", "4"], "dragged below the third");
  await press(page, "Enter");
  const phone = await open(site, { ...PHONE, colorScheme: "dark" });
  await begin(phone, await invite(admin, "Bo"));
  for (const n of [4, 2]) await phone.tap(`.pick[data-rank="${n}"]`);
  await phone.tap('[data-rank="="]');
  await phone.tap('.pick[data-rank="1"]');
  assert.deepEqual(await typed(phone), ["2", "2", "", "1"], "4 > 2 = 1 by tapping");
  await shot(phone, "rank-phone-dark");
  await accessible(phone, "a ranking on a phone");
  await drag(phone, true);
  assert.deepEqual(await typed(phone), ["3", "1", "2", "4"], "dragged with a finger");
};

const judgements = async () => {
  const admin = await open(judged.base);
  await signIn(admin, judged.base);
  const page = await open(judged.base, { colorScheme: "dark" });
  await begin(page, judged.base + await invite(admin, "Ann"));
  for (let n = 0; n < 4; n++) await page.keyboard.press("r");
  assert.ok(await page.isChecked("[name=rating][value='4']"), "four presses are four points");
  await shot(page, "judge-dark");
  await accessible(page, "a judgement");
  await press(page, "2");
  await page.keyboard.press("s");
  await page.keyboard.type("The question");
  await press(page, "Enter");
  await press(page, "u");
  assert.equal(await page.inputValue("#reason"), "The question is unclear", "an undone skip keeps its reason");
  assert.match(await page.textContent("[role=status]"), /open again/);
  await accessible(page, "a judgement that was taken back");
  const before = problems.length;
  const tab = await page.context().newPage();
  await tab.goto(`${judged.base}/work`);
  await press(tab, "1");
  await page.bringToFront();
  await page.keyboard.press("c");
  await page.keyboard.type("too late");
  await page.waitForSelector("#lost", { state: "visible" });
  problems.length = before; // the console names the 409
};

const everywhere = async () => {
  const base = judged.base;
  // Colors do not depend on the width, so two looks show both themes and both layouts.
  for (const [name, options] of Object.entries({ light: {}, "phone-dark": { ...PHONE, colorScheme: "dark" } })) {
    const admin = await open(base, options);
    const look = async (page, what) => {
      await drawn(page);
      await accessible(page, `${what}, ${name}`);
      await shot(page, `${what}-${name}`);
    };
    await admin.goto(`${base}/`);
    await look(admin, "home");
    await admin.goto(`${base}/admin`);
    await look(admin, "sign-in");
    await signIn(admin, base);
    await look(admin, "admin");
    const link = base + await invite(admin, `Reader ${name}`);
    await look(admin, "people");
    for (const path of ["disagreements", "settings", "audit"]) {
      await follow(admin, `/admin/${path}`);
      await look(admin, path);
    }
    const page = await open(base, options);
    await page.goto(link);
    await look(page, "invite");
    await press(page, "Enter");
    await look(page, "guidelines");
    await press(page, "Enter");
    await look(page, "judge");
    const before = problems.length;
    await page.goto(`${base}/nowhere`);
    await look(page, "missing");
    problems.length = before; // the console names the 404
  }
};

try {
  await rankings();
  await judgements();
  await everywhere();
  assert.deepEqual(problems, []);
  console.log("browser: rankings, judgements, 12 pages in 2 looks");
} finally {
  await browser.close();
  proxy.close();
  ranks.stop();
  judged.stop();
}
