// Drives real applications through Postern in headless Chromium.
// Usage: node drive.mjs WHAT URL USERNAME PASSWORD SCREENSHOT_FOLDER
import { createRequire } from "node:module";

const require = createRequire(new URL("../.tools/npm/", import.meta.url));
const { chromium } = require("playwright-core");
const [what, url, username, password, shots] = process.argv.slice(2);

// What Chromium would learn from Alt-Svc, it does only for authorities of the public.
const quic = what !== "http3" ? ["--disable-quic"] : [
  "--enable-quic", `--origin-to-force-quic-on=${new URL(url).host}`,
  `--ignore-certificate-errors-spki-list=${process.env.ROOT_SPKI}`,
];
const browser = await chromium.launch({
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  args: [
    "--no-sandbox", "--disable-gpu", ...quic, "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--host-resolver-rules=MAP *.postern.localhost 127.0.0.1",
  ],
});
// The root certificate is this run's own; what Chromium thinks of it is not what is tested here.
const context = await browser.newContext({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 800 } });
const page = await context.newPage();
page.setDefaultTimeout(60_000);

async function shot(name) {
  await page.screenshot({ path: `${shots}/${what}-${name}.png` });
}

async function signIn() {
  await page.goto(url);
  await page.waitForSelector("input[name=username]");
  await shot("sign-in");
  await page.fill("input[name=username]", username);
  await page.fill("input[name=password]", password);
  await page.click("button[type=submit]");
}

const stories = {
  // The portal, the demo application, signing out.
  async portal() {
    await signIn();
    await page.waitForSelector("text=My applications");
    await shot("portal");
    await page.click("text=Demo");
    await page.waitForSelector("text=Hello, admin");
    await shot("demo");
    await page.goBack();
    await page.click("text=Sign out");
    await page.waitForSelector("text=Sign out?");
    await shot("sign-out");
    await page.click("button[type=submit]");
    await page.waitForSelector("text=You are signed out");
  },
  // Somebody else's provider signs the user in, and asks whether it may.
  async provider() {
    await page.goto(url);
    await page.waitForSelector("text=Continue with Example");
    await shot("choose");
    await page.click("text=Continue with Example");
    await page.fill("input[name=login]", username);
    await page.fill("input[name=password]", password);
    await shot("there");
    await page.click("button[type=submit]");
    await page.click("text=Continue");
    await page.waitForSelector("text=Hello, alice");
    await shot("back");
  },
  // The part behind '#' is there again after the sign-in.
  async fragment() {
    await signIn();
    await page.waitForSelector("text=Hello, admin");
    if (!page.url().endsWith("#chapter-2")) throw new Error(`the fragment is lost: ${page.url()}`);
  },
  // Pages and what they load come over QUIC.
  async http3() {
    await signIn();
    await page.waitForSelector("text=Hello, admin");
    await page.reload();
    const hop = await page.evaluate(() => performance.getEntriesByType("navigation")[0].nextHopProtocol);
    if (hop !== "h3") throw new Error(`the page came over ${hop}`);
    await shot("demo");
  },
  // A notebook cell is executed: a kernel behind a WebSocket.
  async jupyter() {
    await signIn();
    await page.waitForSelector(".jp-Launcher-body, .jp-Notebook", { state: "visible" });
    await page.click(".jp-LauncherCard[data-category=Notebook]");
    // A cell that is run before the kernel is there is dropped without a word.
    await page.waitForSelector(".jp-Notebook-ExecutionIndicator[data-status=idle]", { state: "attached" });
    await page.waitForSelector("#jp-main-statusbar :text('| Idle')");
    const cell = page.locator(".jp-Notebook .jp-Cell .cm-content").first();
    await cell.click();
    await page.keyboard.type("print('postern', 6 * 7)");
    await page.keyboard.press("Shift+Enter");
    await page.waitForSelector(".jp-OutputArea-output:has-text('postern 42')");
    await shot("cell");
  },
  // A flow is deployed; the editor talks over a WebSocket.
  async nodered() {
    await signIn();
    await page.waitForSelector("#red-ui-header-button-deploy, .red-ui-deploy-button");
    for (const close of await page.locator(".red-ui-tourGuide-popover button, .red-ui-notification button").all()) {
      await close.click().catch(() => {});
    }
    const inject = page.locator(".red-ui-palette-node[data-palette-type=inject]");
    const target = page.locator("#red-ui-workspace-chart");
    await inject.dragTo(target, { targetPosition: { x: 300, y: 200 } });
    await page.locator("#red-ui-header-button-deploy").click();
    await page.waitForSelector("text=Successfully deployed");
    await shot("deployed");
  },
};

try {
  await stories[what]();
  console.log("ok");
} catch (error) {
  await shot("failed");
  console.log(`failed at ${page.url()}: ${error.message}`);
  process.exitCode = 1;
} finally {
  await browser.close();
}
