//! `cargo xtask judge dashboard`: the dashboard in a real browser, on a wide screen and on a phone: what it shows is what the system
//! says, it lives, it does nothing without the token, and with it a driver is restarted by its button.
//!
//! The browser is Chromium, spoken to by the WebDriver protocol (W3C WebDriver, 10 to 17) through curl. Pictures of both
//! screens stay in `target/judge`.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::process::{Child, ExitCode, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use super::{Nics, Verdict, hear};
use crate::fetch::curl;
use crate::setup::{Needed, needed};
use crate::system::headless::System;
use crate::{build, tool};

const NEEDS: &[Needed] = &[
    needed("curl", "curl"),
    needed("chromium", "chromium"),
    needed("chromedriver", "chromium-driver"),
];
/// The page asks each second; a browser on a busy host takes its time.
const LIMIT: Duration = Duration::from_secs(60);
const TOKEN: &str = "judged";

/// What `cargo xtask judge dashboard` takes.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct DashboardArgs {
    /// The verdicts as JSON.
    #[arg(long)]
    json: bool,
}

/// A screen.
struct Screen {
    name: &'static str,
    width: u32,
    height: u32,
    /// Pixels of the device for each of the page's; more than 1 on phones.
    ratio: u32,
}

const SCREENS: [Screen; 2] = [
    Screen {
        name: "wide",
        width: 1600,
        height: 1000,
        ratio: 1,
    },
    Screen {
        name: "phone",
        width: 390,
        height: 844,
        ratio: 3,
    },
];

pub(super) fn run(args: &DashboardArgs) -> anyhow::Result<ExitCode> {
    let nics = Nics {
        nics: vec!["virtio".to_owned()],
        json: args.json,
    };
    nics.judge(judge)
}

fn judge(nic: &str, tell: &mut dyn FnMut(Verdict)) -> anyhow::Result<()> {
    let demo = crate::image::demo()?.display().to_string();
    let disk = format!("{demo},readonly");
    let append = format!("dashboard-token={TOKEN}");
    let mut system = System::start(&[
        "--cpus",
        "2",
        "--nic",
        nic,
        "--disk",
        &disk,
        "--forward",
        "0:80",
        "--append",
        &append,
    ])?;
    system.sh("ip wait 30 >/dev/null", 0)?;
    let web = system.port(80)?;
    for screen in &SCREENS {
        let (outcome, seen) = hear(NEEDS, || look(&system, web, screen));
        tell(Verdict {
            nic: nic.to_owned(),
            judge: format!("dashboard-{}", screen.name),
            outcome,
            seen,
        });
    }
    system.sh("poweroff", 0)?;
    system.ended()
}

/// The browser's server, which ends with this.
struct Server {
    child: Child,
    port: u16,
}

impl Server {
    fn start() -> anyhow::Result<Server> {
        let mut command = tool::command("chromedriver");
        let mut child = command
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("chromedriver")?;
        let output = child.stdout.take().context("its output")?;
        let mut server = Server { child, port: 0 };
        for line in BufReader::new(output).lines() {
            let line = line?;
            let port = line.split("started successfully on port ").nth(1);
            if let Some(port) = port.and_then(|rest| rest.trim_end_matches('.').parse().ok()) {
                server.port = port;
                return Ok(server);
            }
        }
        bail!("chromedriver does not say its port")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A window of a browser, which closes with this.
struct Window<'a> {
    server: &'a Server,
    session: String,
    _profile: tempfile::TempDir,
}

impl Window<'_> {
    fn open<'a>(server: &'a Server, screen: &Screen) -> anyhow::Result<Window<'a>> {
        let profile = tempfile::tempdir()?;
        let mut options = json!({ "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
            "--disable-background-networking", "--disable-component-update", "--hide-scrollbars",
            format!("--window-size={},{}", screen.width, screen.height),
            format!("--user-data-dir={}", profile.path().display()),
        ]});
        if screen.ratio > 1 {
            options["mobileEmulation"] = json!({ "deviceMetrics": {
                "width": screen.width, "height": screen.height, "pixelRatio": screen.ratio, "touch": true,
            }});
        }
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": options, "goog:loggingPrefs": { "browser": "ALL" },
        }}});
        let value = ask(server, "/session", Some(&wanted))?;
        let session = value["sessionId"]
            .as_str()
            .context("no session")?
            .to_owned();
        Ok(Window {
            server,
            session,
            _profile: profile,
        })
    }

    fn ask(&self, what: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        ask(
            self.server,
            &format!("/session/{}{what}", self.session),
            body,
        )
    }

    fn go(&self, url: &str) -> anyhow::Result<()> {
        // A page that differs in what follows `#` only would not be loaded anew.
        for url in ["about:blank", url] {
            self.ask("/url", Some(&json!({ "url": url })))?;
        }
        Ok(())
    }

    /// What a function's body gives in the page.
    fn script(&self, body: &str) -> anyhow::Result<Value> {
        self.ask(
            "/execute/sync",
            Some(&json!({ "script": body, "args": [] })),
        )
    }

    /// Waits until an expression is true in the page.
    fn until(&self, what: &str, expression: &str) -> anyhow::Result<()> {
        let started = Instant::now();
        while self.script(&format!("return Boolean({expression})"))? != true {
            ensure!(started.elapsed() < LIMIT, "{what}: not within {LIMIT:?}");
            thread::sleep(Duration::from_millis(100));
        }
        Ok(())
    }

    fn picture(&self, name: &str) -> anyhow::Result<()> {
        use base64::Engine;
        let value = self.ask("/screenshot", None)?;
        let text = value.as_str().context("no picture")?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(text)?;
        let file = build::target_folder("judge")?.join(format!("dashboard-{name}.png"));
        Ok(std::fs::write(file, bytes)?)
    }
}

impl Drop for Window<'_> {
    fn drop(&mut self) {
        let url = format!(
            "http://127.0.0.1:{}/session/{}",
            self.server.port, self.session
        );
        // The server's end closes it too.
        let _ = curl(&["-X", "DELETE", &url]);
    }
}

/// One command of the protocol: POST with a body, GET without.
fn ask(server: &Server, what: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    let url = format!("http://127.0.0.1:{}{what}", server.port);
    let text = body.map(Value::to_string);
    let answer = match &text {
        Some(text) => curl(&[
            "--header",
            "Content-Type: application/json",
            "--data",
            text,
            &url,
        ]),
        None => curl(&[&url]),
    };
    let mut answer: Value = serde_json::from_slice(&answer.with_context(|| what.to_owned())?)?;
    Ok(answer["value"].take())
}

fn look(system: &System, web: u16, screen: &Screen) -> anyhow::Result<String> {
    let server = Server::start()?;
    let window = Window::open(&server, screen)?;
    let url = format!("http://127.0.0.1:{web}/");

    window.go(&url)?;
    let live = "document.getElementById('state').textContent == 'live'";
    window.until("the page does not go live", live)?;
    let shown = window
        .script("return [...document.querySelectorAll('[data-path]')].map(e => e.dataset.path)")?;
    let shown: BTreeSet<&str> = shown
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
        .collect();
    let list: Value = serde_json::from_slice(&system.sh("drv list --json", 0)?.stdout)?;
    let nodes = list.as_array().or_else(|| list["nodes"].as_array());
    let nodes = nodes.context("drv list --json is no list")?;
    for node in nodes {
        let path = node["path"].as_str().context("a node without a path")?;
        ensure!(shown.contains(path), "{path} is not shown");
    }
    let enabled = window.script("return document.querySelectorAll('button:enabled').length")?;
    ensure!(enabled == 0, "{enabled} buttons without the token");
    let foreign = window.script(
        "return performance.getEntriesByType('resource').filter(r => !r.name.startsWith(location.origin)).length",
    )?;
    ensure!(foreign == 0, "{foreign} resources from elsewhere");
    let wider = "return document.documentElement.scrollWidth - innerWidth";
    let wider = window.script(wider)?.as_i64().context("the page's width")?;
    ensure!(
        wider <= 0,
        "the page is {wider} pixels wider than the screen"
    );
    // A plot is a line that moves: its pixels change.
    window.script("window.before = document.querySelector('canvas').toDataURL()")?;
    window.until(
        "the plot does not move",
        "document.querySelector('canvas').toDataURL() != window.before",
    )?;

    window.go(&format!("{url}#token={TOKEN}"))?;
    window.until("the page does not go live", live)?;
    let disk = nodes
        .iter()
        .find(|node| node["driver"] == "virtio-blk")
        .and_then(|node| node["path"].as_str())
        .context("no disk's driver")?;
    let row = format!("document.querySelector('[data-path=\"{disk}\"]')");
    let before = restarts(system, disk)?;
    window.until(
        "no button",
        &format!("{row} && {row}.querySelector('button:enabled')"),
    )?;
    window.script(&format!("{row}.querySelector('button').click()"))?;
    let facts = format!("{row}.querySelector('.dim').textContent");
    window.until(
        "the restart is not shown",
        &format!(
            "/\\b{} restarts?\\b/.test({facts}) && {row}.querySelector('.chip.running')",
            before + 1
        ),
    )?;
    ensure!(
        restarts(system, disk)? == before + 1,
        "the button did not restart the driver once"
    );
    // A driver that dies has its report on the page.
    let dead = window.script("return document.querySelectorAll('#crashes details').length")?;
    system.sh("ps | grep virtio-blk | { read pid rest; kill -9 $pid; }", 0)?;
    window.until(
        "the report is not shown",
        &format!("document.querySelectorAll('#crashes details').length > {dead}"),
    )?;
    window.script("document.querySelector('#crashes details').open = true; scrollTo(0, 0)")?;
    // Some points of the plots, for the picture.
    thread::sleep(Duration::from_secs(5));
    window.picture(screen.name)?;
    let log = window.ask("/se/log", Some(&json!({ "type": "browser" })))?;
    let mut lines = log.as_array().into_iter().flatten();
    if let Some(line) = lines.find(|line| line["level"] == "SEVERE") {
        bail!("the browser complains: {}", line["message"]);
    }
    Ok(format!(
        "{} devices, live, read-only without the token; a driver restarted by its button, a report; {} by {} pixels",
        nodes.len(),
        screen.width,
        screen.height
    ))
}

/// How often the driver of a node was restarted, as the system has it.
fn restarts(system: &System, node: &str) -> anyhow::Result<u64> {
    let info = system.sh(&format!("drv info {node} --json"), 0)?.stdout;
    let info: Value = serde_json::from_slice(&info)?;
    let restarts = info["restarts"].as_u64();
    restarts.with_context(|| format!("no restarts in {info}"))
}
