//! A real browser, Chromium, driven over WebDriver.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::{debian, say_not_run};

/// Longest wait for a page to be as it is expected.
const PATIENCE: Duration = Duration::from_secs(60);

/// The key of an element's id in WebDriver.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// A browser with one window. It ends on drop.
#[derive(Debug)]
pub struct Browser {
    driver: Child,
    client: reqwest::Client,
    session: String,
}

impl Browser {
    /// Starts the driver and a browser without windows. `None`, which is reported, where they are
    /// not installed and can't be fetched.
    ///
    /// # Errors
    ///
    /// If they do not start: a browser that is here and does not work hides nothing.
    pub async fn open() -> anyhow::Result<Option<Self>> {
        Self::open_with(&[]).await
    }

    /// The same with these options of Chromium's command line.
    ///
    /// # Errors
    ///
    /// As above.
    pub async fn open_with(options: &[&str]) -> anyhow::Result<Option<Self>> {
        match debian::command("chromium-driver", "chromedriver") {
            Ok(command) => Self::start(command, options).await.map(Some),
            Err(error) => {
                say_not_run(&format!("Chromium is not here: {error:#}"));
                Ok(None)
            }
        }
    }

    async fn start(mut command: Command, options: &[&str]) -> anyhow::Result<Self> {
        // Beside an unpacked driver, the browser is unpacked too.
        let unpacked = PathBuf::from(command.get_program())
            .parent()
            .map(|bin| bin.join("../lib/chromium/chromium"));
        let binary = unpacked.filter(|binary| binary.is_file());
        let mut driver = command
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        let port = port_of(&mut driver)?;
        let mut browser = Self {
            driver,
            client: reqwest::Client::builder().timeout(PATIENCE).build()?,
            session: format!("http://127.0.0.1:{port}/session"),
        };
        let started = browser.say("", Some(capabilities(binary, options))).await?;
        let id = started["sessionId"].as_str().context("no session")?;
        browser.session = format!("{}/{id}", browser.session);
        Ok(browser)
    }

    /// Goes to an address.
    pub async fn visit(&self, url: &str) -> anyhow::Result<()> {
        let to = json!({ "url": url });
        self.say("/url", Some(to)).await.map(drop)
    }

    /// Runs a script in the page, and returns what it returns.
    pub async fn run(&self, script: &str) -> anyhow::Result<Value> {
        let script = json!({ "script": script, "args": [] });
        self.say("/execute/sync", Some(script)).await
    }

    /// Runs a script that hands what it found to its last argument.
    pub async fn run_async(&self, script: &str) -> anyhow::Result<Value> {
        let script = json!({ "script": script, "args": [] });
        self.say("/execute/async", Some(script)).await
    }

    /// Presses these keys, as if typed on a keyboard, wherever the focus is.
    pub async fn press(&self, keys: &str) -> anyhow::Result<()> {
        let strokes = keys.chars().flat_map(|key| {
            let stroke = |kind: &str| json!({ "type": kind, "value": key.to_string() });
            [stroke("keyDown"), stroke("keyUp")]
        });
        let strokes: Vec<_> = strokes.collect();
        let board = json!({ "type": "key", "id": "board", "actions": strokes });
        let actions = json!({ "actions": [board] });
        self.say("/actions", Some(actions)).await.map(drop)
    }

    /// Opens a tab and goes to it.
    pub async fn open_tab(&self) -> anyhow::Result<()> {
        let new = self
            .say("/window/new", Some(json!({ "type": "tab" })))
            .await?;
        let to = json!({ "handle": new["handle"] });
        self.say("/window", Some(to)).await.map(drop)
    }

    /// Makes the system's colours `light` or `dark`.
    pub async fn prefer(&self, scheme: &str) -> anyhow::Result<()> {
        let feature = json!({ "name": "prefers-color-scheme", "value": scheme });
        let command = json!({
            "cmd": "Emulation.setEmulatedMedia",
            "params": { "features": [feature] },
        });
        let path = "/goog/cdp/execute";
        self.say(path, Some(command)).await.map(drop)
    }

    /// Makes the viewer's time zone this one, as `Australia/Sydney`.
    pub async fn live_in(&self, zone: &str) -> anyhow::Result<()> {
        let command = json!({
            "cmd": "Emulation.setTimezoneOverride",
            "params": { "timezoneId": zone },
        });
        let path = "/goog/cdp/execute";
        self.say(path, Some(command)).await.map(drop)
    }

    /// A picture of what the window shows, as PNG.
    pub async fn picture(&self) -> anyhow::Result<Vec<u8>> {
        let picture = self.say("/screenshot", None).await?;
        let text = picture.as_str().context("no picture")?;
        Ok(STANDARD.decode(text)?)
    }

    /// Types into the first field that the selector names.
    pub async fn type_into(&self, css: &str, text: &str) -> anyhow::Result<()> {
        let field = self.element("css selector", css).await?;
        let text = json!({ "text": text });
        let path = format!("/element/{field}/value");
        self.say(&path, Some(text)).await.map(drop)
    }

    /// Clicks the first link or button with this text.
    pub async fn click(&self, text: &str) -> anyhow::Result<()> {
        let path = format!("//*[self::a or self::button or self::summary][contains(., '{text}')]");
        let found = self.element("xpath", &path).await?;
        let path = format!("/element/{found}/click");
        self.say(&path, Some(json!({}))).await.map(drop)
    }

    /// Sets the size of the window.
    pub async fn resize(&self, width: u32, height: u32) -> anyhow::Result<()> {
        let size = json!({ "width": width, "height": height });
        self.say("/window/rect", Some(size)).await.map(drop)
    }

    /// What the browser complained of since it was asked last.
    pub async fn complaints(&self) -> anyhow::Result<Vec<String>> {
        let asked = self
            .say("/se/log", Some(json!({ "type": "browser" })))
            .await?;
        let entries = asked.as_array().cloned().unwrap_or_default();
        Ok(entries
            .iter()
            .map(|entry| entry["message"].to_string())
            .collect())
    }

    /// Waits until the page shows this text.
    pub async fn until_shown(&self, text: &str) -> anyhow::Result<()> {
        let began = Instant::now();
        loop {
            let shown = self.run("return document.body.innerText").await?;
            let shown = shown.as_str().unwrap_or_default();
            if shown.contains(text) {
                return Ok(());
            }
            if began.elapsed() > PATIENCE {
                bail!("`{text}` is not in: {shown}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    async fn element(&self, using: &str, value: &str) -> anyhow::Result<String> {
        let sought = json!({ "using": using, "value": value });
        let found = self.say("/element", Some(sought)).await?;
        let id = found[ELEMENT].as_str().context("no element")?;
        Ok(id.to_owned())
    }

    async fn say(&self, path: &str, body: Option<Value>) -> anyhow::Result<Value> {
        let url = format!("{}{path}", self.session);
        let request = match body {
            Some(body) => self.client.post(&url).body(body.to_string()),
            None => self.client.get(&url),
        };
        let response = request.send().await?;
        let is_well = response.status().is_success();
        let answer: Value = serde_json::from_str(&response.text().await?)?;
        ensure!(is_well, "{path}: {answer}");
        Ok(answer["value"].clone())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The driver ends the browser when it is asked to, and leaves it when it is killed.
        if let Some(address) = self.session.strip_prefix("http://") {
            let (host, path) = address.split_once('/').unwrap_or((address, ""));
            if let Ok(mut stream) = std::net::TcpStream::connect(host) {
                use std::io::{Read, Write};
                let request =
                    format!("DELETE /{path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
                let _ = stream.set_read_timeout(Some(PATIENCE));
                let _ = stream.write_all(request.as_bytes());
                let _ = stream.read_to_end(&mut Vec::new());
            }
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The port that the driver says it listens on.
fn port_of(driver: &mut Child) -> anyhow::Result<u16> {
    let output = driver.stdout.take().context("no output")?;
    let mut lines = BufReader::new(output).lines();
    let said = lines.find_map(|line| {
        let line = line.ok()?;
        // It names the port that it was asked for before, which is 0.
        let (_, port) = line.split_once("successfully on port ")?;
        port.trim_end_matches('.').parse().ok()
    });
    // It goes on saying things, which somebody has to read.
    std::thread::spawn(move || lines.for_each(drop));
    said.context("the driver did not start")
}

fn capabilities(binary: Option<PathBuf>, more: &[&str]) -> Value {
    let mut args = vec![
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--disable-background-networking",
        "--force-prefers-reduced-motion",
    ];
    args.extend(more);
    let mut options = json!({ "args": args });
    if let Some(binary) = binary {
        options["binary"] = json!(binary);
    }
    json!({ "capabilities": { "alwaysMatch": {
        "browserName": "chrome",
        "goog:chromeOptions": options,
        "goog:loggingPrefs": { "browser": "ALL" },
    }}})
}
