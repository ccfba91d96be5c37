//! The HTTP side of a running daemon: page, API, live picture, events; and who may change what.

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Process, Station, free_port, need_library, root, text};

const TO_START: Duration = Duration::from_secs(60);
const TO_ANSWER: Duration = Duration::from_secs(60);
const TOKEN: &str = "a-token-of-many-characters";

/// Status line, headers (lower case) and body of one answer.
struct Answer {
    code: u16,
    headers: String,
    body: Vec<u8>,
}

impl Answer {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {} {}", self.code, self.text()))
    }
}

fn read_answer(stream: impl Read) -> Answer {
    let mut bytes = Vec::new();
    BufReader::new(stream).read_to_end(&mut bytes).unwrap();
    let end = bytes.windows(4).position(|w| w == b"\r\n\r\n").unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&bytes)));
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(!head.contains("transfer-encoding: chunked"), "{head}");
    Answer { code, headers: head, body: bytes[end + 4..].to_vec() }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut out = format!("{method} {path} HTTP/1.1\r\nHost: station\r\nConnection: close\r\nContent-Length: {}\r\n", body.len());
    headers.iter().for_each(|(k, v)| out.push_str(&format!("{k}: {v}\r\n")));
    out.push_str("\r\n");
    let mut out = out.into_bytes();
    out.extend_from_slice(body);
    out
}

/// A running daemon with a page.
struct Site {
    station: Station,
    daemon: Process,
    port: u16,
}

impl Site {
    /// Inspects the demo's frames over and over.
    fn start(extra: &str) -> Self {
        need_library();
        let port = free_port();
        let station = Station::new(
            free_port(),
            &format!(
                "mqtt.enabled = false\nhttp.listen = \"127.0.0.1:{port}\"\nhttp.socket = \"http.sock\"\ncamera.loop = true\n\
                 evidence.overlays = \"ng\"\n{extra}"
            ),
        );
        let config = std::fs::read_to_string(&station.config).unwrap();
        let config = config.replace("http.enabled = false\n", "").replace("camera.rate_hz = 50", "camera.rate_hz = 8");
        std::fs::write(&station.config, config).unwrap();
        let data = root().join("tests/data/demo");
        for name in ["000.jpg", "002.jpg", "004.jpg", "007.jpg"] {
            std::fs::copy(data.join("frames").join(name), station.path("frames").join(name)).unwrap();
        }
        let taught = station.teach(&data.join("template.png"));
        assert!(taught.status.success(), "{}", text(&taught));
        let mut daemon = station.run();
        daemon.wait_for("ready", TO_START);
        Self { station, daemon, port }
    }

    fn stream(&self) -> std::net::TcpStream {
        let stream = std::net::TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(TO_ANSWER)).unwrap();
        stream
    }

    fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        let mut stream = self.stream();
        stream.write_all(&request(method, path, headers, body)).unwrap();
        read_answer(stream)
    }

    fn get(&self, path: &str) -> Answer {
        self.ask("GET", path, &[], &[])
    }

    fn json(&self, path: &str) -> Value {
        let answer = self.get(path);
        assert_eq!(answer.code, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Over the Unix socket.
    fn local(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let mut stream = std::os::unix::net::UnixStream::connect(self.station.path("http.sock")).unwrap();
        stream.set_read_timeout(Some(TO_ANSWER)).unwrap();
        stream.write_all(&request(method, path, &[], body)).unwrap();
        read_answer(stream)
    }

    /// Asks until `good`, and answers the last.
    fn until(&self, path: &str, good: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + TO_ANSWER;
        loop {
            let value = self.json(path);
            if good(&value) {
                return value;
            }
            assert!(Instant::now() < end, "{path} stays {value}\n{}", self.daemon.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Writes a token file that only its owner reads.
fn with_token(name: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, format!("{TOKEN}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    let setting = format!("http.token_file = \"{}\"\n", path.display());
    (folder, setting)
}

fn is_png(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x89PNG\r\n\x1a\n")
}

#[test]
fn everything_can_be_read() {
    let site = Site::start("");
    site.until("/api/v1/stats", |s| s["stored"]["ng"].as_u64() > Some(0) && s["stored"]["error"].as_u64() > Some(0));

    // The page and its parts, none of which names another host.
    let page = site.get("/");
    assert_eq!(page.code, 200);
    assert!(page.headers.contains("content-security-policy: default-src 'self'"), "{}", page.headers);
    for (path, kind) in
        [("/", "text/html"), ("/page.js", "text/javascript"), ("/page.css", "text/css"), ("/favicon.svg", "image/svg+xml")]
    {
        let answer = site.get(path);
        assert_eq!(answer.code, 200, "{path}");
        assert!(answer.headers.contains(&format!("content-type: {kind}")), "{path}: {}", answer.headers);
        assert!(answer.headers.contains("x-content-type-options: nosniff"), "{path}: {}", answer.headers);
        let outside = answer.text().replace("http://www.w3.org/2000/svg", "");
        assert!(!outside.contains("http://") && !outside.contains("https://") && !outside.contains("src=\"//"), "{path}");
    }
    assert_eq!(site.get("/healthz").text(), "ok\n");
    assert_eq!(site.json("/readyz")["ready"], true);
    assert_eq!(site.get("/nothing").code, 404);

    let metrics = site.get("/metrics").text();
    let info = metrics.lines().find(|l| l.starts_with("ssds_provider_info{")).unwrap();
    for label in ["provider=\"cpu\"", "precision=\"fp32\"", "library=\"1.", "model=\""] {
        assert!(info.contains(label), "{info}");
    }
    let status = site.json("/api/v1/status");
    assert_eq!(status["model"]["provider"], "cpu", "{status}");
    assert_eq!(status["model"]["parity"]["state"], "golden", "{status}");
    assert_eq!(status["product"]["template"]["version"], 1, "{status}");
    let stats = site.json("/api/v1/stats");
    assert!(stats["stages"]["infer"]["mean_ms"].as_f64().unwrap() > 0.0, "{stats}");
    assert!(site.get("/api/v1/config").text().contains("[inference]"));

    // Results, in pages.
    let first = site.json("/api/v1/inspections?limit=3");
    let list = first["inspections"].as_array().unwrap();
    assert_eq!(list.len(), 3);
    let seq = |v: &Value| v["seq"].as_u64().unwrap();
    let next = first["next_before"].as_u64().unwrap();
    assert_eq!(next, seq(&list[2]));
    let second = site.json(&format!("/api/v1/inspections?limit=1&before={next}&brief=true"));
    assert_eq!(seq(&second["inspections"][0]), next - 1);
    assert!(second["inspections"][0].get("align").is_none() && second["inspections"][0]["ms"]["total"].is_number(), "{second}");
    let bad = site.json("/api/v1/inspections?verdict=ng&limit=5");
    assert!(bad["inspections"].as_array().unwrap().iter().all(|e| e["verdict"] == "NG"), "{bad}");
    for (query, wanted) in [
        ("limit=0", "limit must be from 1 to 1000, got 0"),
        ("verdict=bad", "verdict must be ok, ng or error, got `bad`"),
        ("limti=5", "unknown field `limti`"),
    ] {
        let answer = site.get(&format!("/api/v1/inspections?{query}"));
        assert_eq!(answer.code, 400, "{query}");
        assert!(answer.text().contains(wanted), "{query}: {}", answer.text());
    }

    // One result with its pictures; nothing but an id becomes part of a path.
    let with_picture = site.until("/api/v1/inspections?verdict=ng&limit=100", |v| {
        let oldest = v["inspections"].as_array().and_then(|l| l.last()).cloned().unwrap_or_default();
        site.get(&format!("/api/v1/inspections/{}/overlay.png", oldest["event_id"].as_str().unwrap_or_default())).code == 200
    });
    let id = with_picture["inspections"].as_array().unwrap().last().unwrap()["event_id"].as_str().unwrap().to_owned();
    let event = site.json(&format!("/api/v1/inspections/{id}"));
    assert_eq!((event["event_id"].as_str(), event["model"]["provider"].as_str()), (Some(id.as_str()), Some("cpu")));
    assert!(event["model"]["runtime_version"].as_str().unwrap().starts_with("1."), "{event}");
    let names = event["pictures"].as_array().unwrap();
    assert!(names.contains(&json!("overlay.png")), "{names:?}");
    for name in names.iter().map(|n| n.as_str().unwrap()).chain(["template.png"]) {
        let picture = site.get(&format!("/api/v1/inspections/{id}/{name}"));
        assert!(picture.code == 200 && is_png(&picture.body), "{name}: {} {}", picture.code, picture.headers);
    }
    assert_eq!(site.get(&format!("/api/v1/inspections/{id}/other.png")).code, 404);
    assert_eq!(site.get("/api/v1/inspections/..%2F..%2Fssds.toml/overlay.png").code, 400);
    assert_eq!(site.get("/api/v1/inspections/0193a6d2-7c11-7b3e-9f10-3d5b6c1e8a42").code, 404);

    let templates = site.json("/api/v1/templates");
    let template = &templates["templates"][0];
    assert_eq!((template["id"].as_str(), template["active"].as_bool()), (Some("board/main"), Some(true)));
    let picture = site.get(&format!("/api/v1/templates/{}/picture.png", template["sha256"].as_str().unwrap()));
    assert!(is_png(&picture.body), "{}", picture.headers);
    assert_eq!(site.get("/api/v1/templates/zz/picture.png").code, 400);
    assert_eq!(site.json("/api/v1/recipes"), json!({ "active": null }));
}

#[test]
fn parts_are_seen_live() {
    let site = Site::start("");
    let picture = site.until("/api/v1/stats", |s| s["frames"]["recorded"].as_u64() > Some(0));
    assert!(picture.is_object());
    let jpeg = site.get("/live.jpg");
    assert_eq!(jpeg.code, 200, "{}", jpeg.text());
    assert!(jpeg.body.starts_with(b"\xff\xd8\xff"), "a JPEG");

    // Events: the facts at once, then a part.
    let mut stream = site.stream();
    stream.write_all(&request("GET", "/api/v1/events", &[], &[])).unwrap();
    let mut seen = [false; 2];
    let mut last = String::new();
    for line in BufReader::new(stream).lines() {
        let line = line.unwrap();
        if let Some(data) = line.strip_prefix("data: ") {
            let value: Value = serde_json::from_str(data).unwrap_or_else(|e| panic!("{e}: {data}"));
            match last.as_str() {
                "event: part" => {
                    assert!(value["seq"].is_u64() && value["verdict"].is_string(), "{value}");
                    seen[0] = true;
                }
                "event: status" => {
                    assert_eq!(value["station"], "test1");
                    seen[1] = true;
                }
                other => panic!("{other}"),
            }
        }
        last = line;
        if seen == [true; 2] {
            break;
        }
    }
    assert_eq!(seen, [true; 2]);

    // Two pictures of the stream, each whole.
    let mut stream = site.stream();
    stream.write_all(&request("GET", "/live.mjpg", &[], &[])).unwrap();
    let mut reader = BufReader::new(stream);
    let mut pictures = 0;
    while pictures < 2 {
        let mut line = String::new();
        assert!(reader.read_line(&mut line).unwrap() > 0, "the stream ended");
        if let Some(length) = line.trim().strip_prefix("Content-Length: ") {
            let length: usize = length.parse().unwrap();
            reader.read_line(&mut String::new()).unwrap();
            // The transfer is chunked; a picture in one chunk follows its head directly.
            let mut start = [0; 3];
            reader.read_exact(&mut start).unwrap();
            assert_eq!(start, [0xff, 0xd8, 0xff]);
            assert!(length > 1000, "{length}");
            std::io::copy(&mut reader.by_ref().take(length as u64 - 3), &mut std::io::sink()).unwrap();
            pictures += 1;
        }
    }
}

#[test]
fn changes_need_a_token_or_the_socket_and_are_audited() {
    let (_folder, setting) = with_token("token");
    let site = Site::start(&setting);
    let bearer = format!("Bearer {TOKEN}");
    let own = ("Authorization", bearer.as_str());
    assert_eq!(site.json("/api/v1/status")["writes_by_token"], true);

    // Refused: nothing, a wrong token, another page.
    assert_eq!(site.ask("POST", "/api/v1/pause", &[], &[]).code, 401);
    assert_eq!(site.ask("POST", "/api/v1/pause", &[("Authorization", "Bearer another-long-token")], &[]).code, 401);
    let foreign = site.ask("POST", "/api/v1/pause", &[own, ("Origin", "http://elsewhere")], &[]);
    assert_eq!(foreign.code, 403, "{}", foreign.text());
    assert_eq!(site.get("/api/v1/pause").code, 405);
    assert_eq!(site.json("/api/v1/status")["paused"], false);

    // Paused by the token, resumed over the socket.
    let paused = site.ask("POST", "/api/v1/pause", &[own, ("Origin", "http://station")], &[]);
    assert_eq!((paused.code, paused.json()), (200, json!({ "paused": true })));
    let status = site.until("/api/v1/status", |s| s["paused"] == true && s["frames"]["in_flight"] == 0);
    std::thread::sleep(Duration::from_millis(500));
    let later = site.json("/api/v1/status");
    assert_eq!(later["frames"]["captured"], status["frames"]["captured"], "a paused station takes no frame");
    assert!(later["reasons"].as_array().unwrap().contains(&json!("paused")), "{later}");
    assert_eq!(site.local("POST", "/api/v1/resume", &[]).json(), json!({ "paused": false }));
    let before = later["frames"]["captured"].as_u64();
    site.until("/api/v1/status", |s| s["frames"]["captured"].as_u64() > before);

    // Teaching puts a second version in force; the first can be put back.
    let picture = std::fs::read(root().join("tests/data/demo/frames/000.jpg")).unwrap();
    let taught = site.ask("POST", "/api/v1/teach?product=board&note=from%20a%20test", &[own], &picture);
    assert_eq!(taught.code, 200, "{}", taught.text());
    assert_eq!(taught.json()["version"], 2);
    site.until("/api/v1/status", |s| s["product"]["template"]["version"] == 2);
    let no_picture = site.ask("POST", "/api/v1/teach?product=board", &[own], b"hello");
    assert_eq!(no_picture.code, 400, "{}", no_picture.text());
    assert!(no_picture.text().contains("not a PNG, JPEG, BMP or TIFF file"), "{}", no_picture.text());
    let first = br#"{"id": "board/main", "version": 1}"#;
    assert_eq!(site.local("POST", "/api/v1/templates/activate", first).code, 200);
    site.until("/api/v1/status", |s| s["product"]["template"]["version"] == 1);
    let none = site.local("POST", "/api/v1/templates/activate", br#"{"id": "board/main", "version": 9}"#);
    assert!((400..500).contains(&none.code) && none.text().contains('9'), "{} {}", none.code, none.text());

    let audit = std::fs::read_to_string(site.station.path("state/audit.jsonl")).unwrap();
    let lines: Vec<Value> = audit.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let told: Vec<String> =
        lines.iter().map(|l| format!("{} {}", l["action"].as_str().unwrap(), l["outcome"].as_str().unwrap())).collect();
    assert_eq!(
        told,
        [
            "pause refused",
            "pause refused",
            "pause refused",
            "pause done",
            "resume done",
            "teach done",
            "teach refused",
            "activate done",
            "activate refused"
        ],
        "{audit}"
    );
    assert!(
        lines[3]["peer"].as_str().unwrap().starts_with("127.0.0.1:") && lines[4]["peer"].as_str().unwrap().starts_with("uid ")
    );
    assert!(!audit.contains(TOKEN) && !site.daemon.log().contains(TOKEN), "the token is nowhere written");
}

#[test]
fn without_a_token_file_the_network_changes_nothing() {
    let site = Site::start("");
    let answer = site.ask("POST", "/api/v1/pause", &[("Authorization", "Bearer anything-long-enough")], &[]);
    assert_eq!(answer.code, 403);
    assert!(answer.text().contains("http.token_file is not set"), "{}", answer.text());
    assert_eq!(site.local("POST", "/api/v1/pause", &[]).code, 200);
    assert_eq!(site.json("/api/v1/status")["writes_by_token"], false);
}
