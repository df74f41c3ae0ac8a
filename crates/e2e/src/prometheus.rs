//! A real Prometheus, installed or from Debian's package.

use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::debian;
use crate::deployment::free_ports;

/// A program from the folder in `$PROMETHEUS`, or one that is installed or fetched.
fn command(program: &str) -> Command {
    if let Some(folder) = std::env::var_os("PROMETHEUS") {
        return Command::new(Path::new(&folder).join(program));
    }
    debian::command("prometheus", program).unwrap_or_else(|why| panic!("no Prometheus: {why}"))
}

/// A command of `promtool`.
pub fn promtool() -> Command {
    command("promtool")
}

/// A server that scrapes and evaluates its rules every second. Killed on drop.
#[derive(Debug)]
pub struct Prometheus {
    url: String,
    folder: TempDir,
    child: Child,
}

impl Prometheus {
    /// Starts a server with this configuration, beside copies of these files.
    pub fn start(config: &str, files: &[&Path]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            fs::copy(file, folder.path().join(file.file_name().unwrap())).unwrap();
        }
        fs::write(folder.path().join("prometheus.yml"), config).unwrap();
        let [listen] = free_ports();
        let log = File::create(folder.path().join("log")).unwrap();
        let mut command = command("prometheus");
        command
            .current_dir(folder.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={listen}"))
            .args([
                "--web.console.templates=none",
                "--web.console.libraries=none",
            ]);
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        Self {
            url: format!("http://{listen}"),
            folder,
            child,
        }
    }

    /// The URL of its API.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The value of an expression now.
    pub async fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let answer = self.ask("query", &[("query", expression)]).await;
        match answer["status"].as_str() {
            Some("success") => Ok(answer["data"]["result"]
                .as_array()
                .cloned()
                .unwrap_or_default()),
            _ => Err(answer["error"].to_string()),
        }
    }

    /// The names of alerts that are pending or fire.
    pub async fn alerts(&self) -> Vec<String> {
        let answer = self.ask("alerts", &[]).await;
        let alerts = answer["data"]["alerts"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        alerts
            .iter()
            .map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned())
            .collect()
    }

    /// The rules with their last evaluation: name, health, and error.
    pub async fn rules(&self) -> Vec<(String, String, String)> {
        let answer = self.ask("rules", &[]).await;
        let groups = answer["data"]["groups"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let rules = groups
            .iter()
            .flat_map(|group| group["rules"].as_array().unwrap().clone());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        rules
            .map(|rule| {
                (
                    text(&rule["name"]),
                    text(&rule["health"]),
                    text(&rule["lastError"]),
                )
            })
            .collect()
    }

    async fn ask(&self, what: &str, query: &[(&str, &str)]) -> Value {
        let began = Instant::now();
        let url =
            reqwest::Url::parse_with_params(&format!("{}/api/v1/{what}", self.url), query).unwrap();
        loop {
            match reqwest::get(url.clone()).await {
                Ok(answer) if answer.status() != 503 => {
                    return serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
                }
                _ => assert!(began.elapsed() < Duration::from_secs(30), "{}", self.log()),
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
