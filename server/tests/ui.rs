//! The page at `/ui` in a headless Chromium, driven over the DevTools protocol through two pipes. Where there is no
//! Chromium it says so and is over.
//!
//! `UI_SCREENSHOTS=FOLDER cargo test -p inflightkv-server --test ui` leaves pictures of the page there.
#![cfg(all(feature = "cli", feature = "ui"))]

mod support;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use support::{Client, binary, eventually};

/// A browser on a busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

struct Browser {
    child: Child,
    to: File,
    from: BufReader<File>,
    session: Option<String>,
    next_id: u64,
    /// What the page complained of.
    complaints: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Starts one with a page of nothing; `None` where none is installed.
    fn start() -> Option<Browser> {
        let name = ["chromium", "chromium-browser", "google-chrome"]
            .into_iter()
            .find(|name| {
                Command::new(name)
                    .arg("--version")
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status()
                    .is_ok_and(|status| status.success())
            })?;
        let folder = tempfile::tempdir().expect("a folder");
        let (to, from) = (folder.path().join("to"), folder.path().join("from"));
        for pipe in [&to, &from] {
            let made = Command::new("mkfifo")
                .arg(pipe)
                .status()
                .expect("mkfifo runs");
            assert!(made.success());
        }
        // The browser takes the pipes as descriptors 3 and 4, which a shell can give it.
        let child = Command::new("sh")
            .arg("-c")
            .arg("exec \"$0\" \"$@\" 3<\"$TO\" 4>\"$FROM\"")
            .args([
                name,
                "--headless",
                "--remote-debugging-pipe",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
                "--hide-scrollbars",
            ])
            .arg(format!(
                "--user-data-dir={}",
                folder.path().join("profile").display()
            ))
            .env("TO", &to)
            .env("FROM", &from)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell runs");
        let to = OpenOptions::new()
            .write(true)
            .open(to)
            .expect("the pipe opens");
        let from = File::open(from).expect("the pipe opens");
        let mut browser = Browser {
            child,
            to,
            from: BufReader::new(from),
            session: None,
            next_id: 0,
            complaints: Vec::new(),
            _folder: folder,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attached = browser.call(
            "Target.attachToTarget",
            json!({"targetId": target["targetId"], "flatten": true}),
        );
        browser.session = attached["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    fn call(&mut self, method: &str, parameters: Value) -> Value {
        self.next_id += 1;
        let mut message = json!({"id": self.next_id, "method": method, "params": parameters});
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser listens");
        loop {
            let mut bytes = Vec::new();
            self.from
                .read_until(0, &mut bytes)
                .expect("the browser answers");
            assert_eq!(bytes.pop(), Some(0), "the browser ended");
            let message: Value = serde_json::from_slice(&bytes).expect("a message");
            match message["method"].as_str() {
                Some("Runtime.exceptionThrown") => {
                    self.complaints.push(message["params"].to_string());
                }
                // What the network does not give is the page's to tell, and it does.
                Some("Log.entryAdded") if message["params"]["entry"]["source"] != "network" => {
                    self.complaints.push(message["params"].to_string());
                }
                _ => {}
            }
            if message["id"] == self.next_id {
                assert!(message["error"].is_null(), "{method}: {message}");
                return message["result"].clone();
            }
        }
    }

    fn evaluate(&mut self, expression: &str) -> Value {
        let answer = self.call(
            "Runtime.evaluate",
            json!({"expression": expression, "returnByValue": true, "awaitPromise": true}),
        );
        assert!(
            answer["exceptionDetails"].is_null(),
            "{expression}: {answer}"
        );
        answer["result"]["value"].clone()
    }

    /// Waits until an expression holds.
    fn waits_for(&mut self, expression: &str) {
        let deadline = Instant::now() + PATIENCE;
        while self.evaluate(expression) != true {
            if Instant::now() > deadline {
                let text = self.evaluate("document.body.innerText");
                panic!("{expression} does not come true on\n{text}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn text(&mut self, id: &str) -> String {
        let text = self.evaluate(&format!("document.getElementById('{id}').innerText"));
        text.as_str().expect("a text").to_owned()
    }

    fn click(&mut self, id: &str) {
        self.evaluate(&format!("document.getElementById('{id}').click()"));
    }

    fn type_in(&mut self, id: &str, text: &str) {
        self.evaluate(&format!(
            "document.getElementById('{id}').value = {}",
            json!(text)
        ));
    }

    /// A picture of the whole page, where somebody wants one; whether it is wider than its window.
    fn look(&mut self, name: &str, width: u32, dark: bool) -> bool {
        let scheme = if dark { "dark" } else { "light" };
        self.call(
            "Emulation.setEmulatedMedia",
            json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]}),
        );
        self.call(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false}),
        );
        if let Some(folder) = std::env::var_os("UI_SCREENSHOTS") {
            let picture = self.call(
                "Page.captureScreenshot",
                json!({"format": "png", "captureBeyondViewport": true}),
            );
            let bytes = STANDARD
                .decode(picture["data"].as_str().expect("a picture"))
                .expect("base64");
            let file = std::path::Path::new(&folder).join(format!("{name}.png"));
            std::fs::write(file, bytes).expect("written");
        }
        let overflows =
            "document.documentElement.scrollWidth > document.documentElement.clientWidth";
        self.evaluate(overflows) == true
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server that comes back at the same place.
struct Running(Child);

impl Running {
    fn start(address: SocketAddr, folder: &str) -> Running {
        let mut child = binary()
            .args([
                "--listen",
                &address.to_string(),
                "--data-dir",
                folder,
                "--threads",
                "2",
            ])
            .args([
                "--max-memory",
                "64MiB",
                "--eviction",
                "lru",
                "--log-level",
                "error",
                "--slow-op",
                "1h",
            ])
            .stdout(Stdio::piped())
            .spawn()
            .expect("the server starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("a line");
        assert!(line.starts_with("listening on"), "{line}");
        let running = Running(child);
        eventually("it serves", || {
            Client::connect(address).ask("GET /health/ready", "").status == 200
        });
        running
    }

    fn kill(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

#[test]
fn the_page_shows_searches_edits_and_survives_a_restart() {
    let Some(mut page) = Browser::start() else {
        eprintln!("skipped: there is no chromium to look at the page with");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_str().expect("UTF-8").to_owned();
    let address = TcpListener::bind("127.0.0.1:0")
        .and_then(|free| free.local_addr())
        .expect("a port");
    let mut server = Running::start(address, &path);
    let mut client = Client::connect(address);
    let mut put = |key: &str, value: &str| {
        let answer = client.ask(&format!("PUT /v1/kv/{key}"), value);
        assert!(answer.status < 300, "{answer:?}");
    };
    for n in 0..120 {
        put(
            &format!("user/{n}"),
            &format!("{{\"name\":\"Ada {n}\",\"langs\":[\"en\",\"fr\"]}}"),
        );
    }
    put("other", "1");
    // What looks like markup is text.
    put(
        "%3Cimg%20src%3Dx%20onerror%3Ddocument.title%3D1%3E",
        "\"<script>document.title=1</script>\"",
    );
    let answer = client.ask("POST /v1/admin/snapshot?wait=true", "");
    assert_eq!(answer.status, 200);

    // It loads.
    page.call(
        "Page.navigate",
        json!({"url": format!("http://{address}/ui")}),
    );
    page.waits_for("document.readyState === 'complete' && !!document.getElementById('state')");
    page.waits_for("document.getElementById('state').innerText === 'ready'");
    page.waits_for("document.getElementById('keys').innerText === '122'");
    page.waits_for("document.getElementById('list').rows.length === 51");
    page.waits_for("document.getElementById('wal').innerText.includes('full, 122 keys')");
    assert_eq!(
        page.evaluate("document.getElementById('loops').rows.length"),
        3
    );
    page.click("more");
    page.waits_for("document.getElementById('list').rows.length === 101");
    page.click("more");
    page.waits_for("document.getElementById('found').innerText === '122 keys'");
    assert_eq!(page.evaluate("document.title"), "InFlightKv");

    // It goes on by itself.
    let mut reads = Client::connect(address);
    let deadline = Instant::now() + PATIENCE;
    loop {
        for n in 0..400 {
            reads.ask(&format!("GET /v1/kv/user/{}", n % 90), "");
            reads.ask("GET /v1/kv/other", "");
        }
        let done = page.evaluate(
            "!['–', '0'].includes(document.getElementById('rate').innerText) \
             && document.getElementById('p99').innerText.startsWith('≤') \
             && document.getElementById('hot').innerText.includes('other') \
             && document.getElementById('cache').innerText.includes('%')",
        );
        if done == true {
            break;
        }
        assert!(
            Instant::now() < deadline,
            "{}",
            page.evaluate("document.body.innerText")
        );
    }
    page.click("findbig");
    page.waits_for("document.getElementById('bigs').innerText.includes('user/')");

    // It searches.
    page.type_in("prefix", "user/11");
    page.evaluate("document.getElementById('search').requestSubmit()");
    page.waits_for("document.getElementById('found').innerText === '11 keys'");

    // It shows a value, and changes it.
    page.evaluate("[...document.querySelectorAll('#list button')].find(b => b.innerText === 'user/110').click()");
    page.waits_for("document.getElementById('value').value.includes('Ada 110')");
    let shown = page.evaluate("document.getElementById('value').value");
    assert_eq!(
        shown,
        "{\n  \"name\": \"Ada 110\",\n  \"langs\": [\n    \"en\",\n    \"fr\"\n  ]\n}"
    );
    page.type_in("value", "{\"name\": \"Grace\"}");
    page.click("save");
    page.waits_for("document.getElementById('done').innerText === 'Saved.'");
    let stored = client.ask("GET /v1/kv/user/110", "");
    assert_eq!(stored.text(), "{\"name\":\"Grace\"}");
    assert!(page.text("meta").starts_with("version 1,"));
    // Not over what somebody else wrote meanwhile, and not what is no JSON.
    client.ask("PUT /v1/kv/user/110", "{\"name\":\"Edsger\"}");
    page.click("save");
    page.waits_for("document.getElementById('done').innerText.includes('changed it meanwhile')");
    page.evaluate("document.getElementById('open').requestSubmit()");
    page.waits_for("document.getElementById('value').value.includes('Edsger')");
    page.type_in("value", "{\"name\": ");
    page.click("save");
    page.waits_for("document.getElementById('done').innerText.includes('not acceptable JSON')");

    // Pictures, and that nothing sticks out.
    for (name, width, dark) in [
        ("wide-light", 1400, false),
        ("wide-dark", 1400, true),
        ("narrow-light", 390, false),
        ("narrow-dark", 390, true),
    ] {
        assert!(
            !page.look(name, width, dark),
            "{name} is wider than its window"
        );
    }

    // It deletes, when told twice.
    page.evaluate("window.confirm = () => false");
    page.click("remove");
    page.evaluate("window.confirm = () => true");
    assert_eq!(client.ask("GET /v1/kv/user/110", "").status, 200);
    page.click("remove");
    page.waits_for("document.getElementById('done').innerText === 'Deleted.'");
    assert_eq!(client.ask("GET /v1/kv/user/110", "").status, 404);

    // The server goes and comes back; the page says so, and goes on.
    client.ask("PUT /v1/kv/last?durability=sync", "1");
    server.kill();
    page.waits_for("document.getElementById('state').innerText === 'no answer'");
    let _server = Running::start(address, &path);
    page.waits_for("document.getElementById('state').innerText === 'ready'");
    page.waits_for("document.getElementById('keys').innerText === '122'");
    page.type_in("prefix", "last");
    page.evaluate("document.getElementById('search').requestSubmit()");
    page.waits_for("document.getElementById('found').innerText === '1 key'");
    assert!(page.complaints.is_empty(), "{:#?}", page.complaints);
}

/// With tokens the page asks for one, and does what that may do.
#[test]
fn the_page_asks_for_a_token() {
    let Some(mut page) = Browser::start() else {
        eprintln!("skipped: there is no chromium to look at the page with");
        return;
    };
    let folder = tempfile::tempdir().expect("a folder");
    let made = binary()
        .args(["token", "new", "--name", "page", "--role", "admin"])
        .output()
        .expect("the binary runs");
    let text = String::from_utf8(made.stdout).expect("text");
    let token = text
        .lines()
        .find_map(|line| {
            line.strip_prefix("# ")
                .filter(|rest| rest.starts_with("ikv_"))
        })
        .expect("a token");
    let file = folder.path().join("auth.toml");
    std::fs::write(&file, &text).expect("written");
    let server = support::Server::start(&["--auth", file.to_str().expect("UTF-8")]);
    page.call(
        "Page.navigate",
        json!({"url": format!("http://{}/ui", server.address)}),
    );
    page.waits_for("document.readyState === 'complete' && !!document.getElementById('state')");
    page.waits_for("document.getElementById('state').innerText === 'locked'");
    page.type_in("token", token);
    page.evaluate("document.getElementById('login').requestSubmit()");
    page.waits_for("document.getElementById('state').innerText === 'ready'");
    page.waits_for("document.getElementById('found').innerText === '0 keys'");
    assert!(page.complaints.is_empty(), "{:#?}", page.complaints);
}
