//! Every setting there is: path, type, allowed range, default and meaning, in one table.
//!
//! The checker, the typed settings, the sample file, the JSON Schema and the reference page are all derived from [`KEYS`], so none of
//! them can disagree with another.

/// What a value may be.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Type {
    /// `true` or `false`.
    Bool,
    /// A whole number within the bounds, both included.
    Integer(i64, i64),
    /// A finite number within the bounds, both included.
    Float(f64, f64),
    /// Text that is not empty and no longer than this many bytes.
    Text(usize),
    /// A name: lower-case letters, digits, `_` and `-`, starting with a letter or digit, at most 64 bytes (the schema's `station`).
    Name,
    /// A path; a relative one is taken from the folder of the file that names it.
    Path,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A list of these words, each at most once.
    Choices(&'static [&'static str]),
    /// A list of texts.
    Texts,
    /// A list of whole numbers within the bounds, each at most once.
    Integers(i64, i64),
}

/// Whether a key may be left out, and what then holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Presence {
    /// Left out, this TOML literal holds.
    Default(&'static str),
    /// Left out, the setting is off or unset.
    Optional,
    /// Must be given.
    Required,
}

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Key {
    /// Dotted path, `section.key`.
    pub path: &'static str,
    /// What it may be.
    pub ty: Type,
    /// Whether it may be left out.
    pub presence: Presence,
    /// What it does, one or two sentences.
    pub help: &'static str,
}

const fn key(path: &'static str, ty: Type, presence: Presence, help: &'static str) -> Key {
    Key { path, ty, presence, help }
}

use Presence::{Default as D, Optional as O, Required as R};
use Type::{Bool, Choice, Choices, Float, Integer, Integers, Name, Path, Text, Texts};

/// All settings, in the order of the sample file.
pub const KEYS: &[Key] = &[
    key("config_version", Integer(1, 1), D("1"), "Version of this file's form."),
    key("station.name", Name, R, "The station's name: in every event, and its MQTT client id unless mqtt.client_id is set."),
    key("station.simulated", Bool, D("false"), "Mark every event as simulated (demo and commissioning)."),
    key("paths.state_dir", Path, D("\"/var/lib/ssds\""), "Results (ssds.db), templates and the evidence archive."),
    key("paths.cache_dir", Path, D("\"/var/cache/ssds\""), "What can be made again: TensorRT engines."),
    key("paths.template_dir", Path, O, "Templates; state_dir/templates when left out."),
    key("paths.archive_dir", Path, O, "Evidence; state_dir/archive when left out."),
    key("product.name", Text(64), R, "The product whose active template frames are compared with (made by `ssds teach`)."),
    key("camera.name", Text(64), D("\"camera\""), "The camera's name in logs and alarms."),
    key(
        "camera.backend",
        Choice(&["replay", "auto", "v4l2", "uvc", "genicam"]),
        R,
        "What delivers frames: replay = recorded pictures; v4l2 = a Linux video device, webcams too; uvc = a webcam through nokhwa; genicam = GigE or USB3 Vision (feature genicam); auto = by what the device offers, which the log says.",
    ),
    key(
        "camera.path",
        Path,
        O,
        "Replay: the folder of pictures (in order of their names), or a list: a .txt file with one picture a line, or a .jsonl pair manifest.",
    ),
    key("camera.rate_hz", Float(0.01, 10_000.0), D("5.0"), "Replay: frames a second."),
    key("camera.loop", Bool, D("false"), "Replay: start again after the last picture instead of ending."),
    key(
        "camera.device",
        Text(256),
        O,
        "Which device: a stable path such as /dev/v4l/by-id/... (v4l2), or an address, serial number or name (genicam).",
    ),
    key(
        "camera.format",
        Text(32),
        O,
        "Pixel format by the device's own name (GREY, Y10, Y12, Y16, RGGB, NV12, YUYV, Mono8, Mono12p, BayerRG8, ...); chosen and logged when left out.",
    ),
    key("camera.width", Integer(1, 65_535), O, "Picture width, px; the device's when left out."),
    key("camera.height", Integer(1, 65_535), O, "Picture height, px; the device's when left out."),
    key("camera.offset_x", Integer(0, 65_535), O, "Left edge of the region on the sensor, px (genicam)."),
    key("camera.offset_y", Integer(0, 65_535), O, "Top edge of the region on the sensor, px (genicam)."),
    key("camera.frame_rate", Float(0.01, 10_000.0), O, "Frames a second asked of the device; the device's when left out."),
    key(
        "camera.exposure_us",
        Float(1.0, 100_000_000.0),
        O,
        "Exposure time, microseconds; automatic exposure is switched off and the value read back. Untouched when left out.",
    ),
    key(
        "camera.gain",
        Float(-1000.0, 1_000_000.0),
        O,
        "Gain in the device's unit; automatic gain is switched off and the value read back. Untouched when left out.",
    ),
    key("camera.buffers", Integer(2, 64), D("4"), "Buffers that the device fills in turn."),
    key(
        "camera.auto_off",
        Bool,
        D("true"),
        "Switch automatic exposure, gain and white balance off where the device has them, so that every part is seen alike.",
    ),
    key(
        "camera.controls",
        Type::Texts,
        D("[]"),
        "Further controls as \"name=value\", set in this order and read back: names as in `v4l2-ctl -l` (v4l2) or feature names (genicam); `ssds camera list` shows them.",
    ),
    key(
        "camera.trigger",
        Choice(&["free", "software", "hardware"]),
        D("\"free\""),
        "free = the device runs by itself; software = one picture a trigger over MQTT, HTTP or `ssds trigger` (genicam, replay); hardware = each picture waits for the camera's own input (genicam; v4l2 where camera.controls sets the driver's trigger), and a trigger names the part of the next one.",
    ),
    key("camera.trigger_source", Text(64), D("\"Line1\""), "The input that triggers, by the camera's name for it (genicam)."),
    key(
        "camera.trigger_activation",
        Text(64),
        D("\"RisingEdge\""),
        "What the input must do, by the camera's name for it: RisingEdge, FallingEdge, AnyEdge, ... (genicam).",
    ),
    key(
        "camera.trigger_timeout_ms",
        Integer(1, 600_000),
        D("1000"),
        "A software trigger that brings no frame for so long is answered with ERROR CAMERA_TIMEOUT, and the camera is reopened; so is the name of a part that the camera's own input does not take in that time, without reopening.",
    ),
    key("camera.packet_size", Integer(576, 16_000), O, "Bytes of a stream packet (GigE Vision); negotiated when left out."),
    key("camera.packet_delay_ns", Integer(0, 1_000_000_000), O, "Pause between stream packets, ns (GigE Vision)."),
    key("camera.timeout_ms", Integer(1, 600_000), D("1000"), "A camera that delivers no frame for so long is reopened."),
    key(
        "camera.max_age_ms",
        Integer(1, 600_000),
        D("2000"),
        "A frame older than this when it reaches registration is ERROR FRAME_STALE.",
    ),
    key(
        "camera.frozen_frames",
        Integer(0, 1_000_000),
        D("10"),
        "So many frames in a row without one differing pixel are a frozen picture: an alarm, and ERROR FRAME_STALE from then on; 0 = off.",
    ),
    key("image.min_mean", Float(0.0, 255.0), D("5.0"), "A frame with a lower mean gray level is ERROR IMAGE_DARK."),
    key("image.max_mean", Float(0.0, 255.0), D("250.0"), "A frame with a higher mean gray level is ERROR IMAGE_BRIGHT."),
    key(
        "image.max_saturated_frac",
        Float(0.0, 1.0),
        D("1.0"),
        "A frame with a larger share of pixels at 255 is ERROR IMAGE_BRIGHT; 1 = off, for two-tone pictures.",
    ),
    key(
        "image.min_focus",
        Float(0.0, 1e9),
        D("0.0"),
        "A frame with a lower focus measure (variance of the Laplacian) is ERROR IMAGE_BLUR; 0 = off.",
    ),
    key(
        "image.max_noise",
        Float(0.0, 255.0),
        D("255.0"),
        "A frame with more noise (standard deviation, gray levels) is ERROR IMAGE_DARK, for too little light behind the gain; 255 = off.",
    ),
    key(
        "drift.parts",
        Integer(0, 100_000),
        D("100"),
        "So many registered parts with a template are the baseline of its light, focus and pose, from which slow changes are told; 0 = off.",
    ),
    key(
        "drift.limit",
        Float(1.0, 100.0),
        D("3.0"),
        "How far the running average may lie from the baseline, in spreads of its single parts, before light_drift, focus_drift or pose_drift \
         is raised.",
    ),
    key("align.max_rotation_degrees", Float(0.0, 180.0), D("180.0"), "Largest rotation looked for, either way; 180 = any."),
    key("align.min_scale", Float(0.5, 1.0), D("0.75"), "Smallest size of the template in the frame."),
    key("align.max_scale", Float(1.0, 2.0), D("1.3"), "Largest size of the template in the frame."),
    key("align.min_confidence", Float(0.0, 1.0), D("0.37"), "A registration below this confidence is refused: ERROR ALIGN_FAIL."),
    key(
        "align.model",
        Choice(&["similarity", "affine"]),
        D("\"similarity\""),
        "The pose's form; affine for a slightly tilted camera.",
    ),
    key(
        "align.residual_px",
        Integer(0, 8),
        D("0"),
        "Largest local shift that is removed between registration and network, for bending boards; 0 = off. On flat boards it changes nothing and costs time.",
    ),
    key(
        "align.track",
        Bool,
        D("false"),
        "Start from the last pose: faster for a fixed camera, left at once when confidence falls.",
    ),
    key("inference.model", Path, D("\"/usr/lib/ssds/models/ssds.onnx\""), "The network, as made by ssds-train."),
    key(
        "inference.library",
        Path,
        O,
        "libonnxruntime.so; searched in ORT_DYLIB_PATH, beside the program, /usr/lib/ssds and the system when left out.",
    ),
    key(
        "inference.providers",
        Choices(&["tensorrt", "cuda", "cpu"]),
        D("[\"cpu\"]"),
        "Execution providers, tried in this order.",
    ),
    key(
        "inference.required",
        Bool,
        D("false"),
        "Refuse to start when the first provider cannot be had, instead of trying the next.",
    ),
    key("inference.threads", Integer(1, 256), D("1"), "CPU threads inside one run of the network."),
    key("inference.tile_px", Integer(64, 4096), D("256"), "Side of a tile, a multiple of 16; larger frames are tiled."),
    key("inference.overlap_px", Integer(1, 1024), D("32"), "Overlap of neighbouring tiles; less than half a tile."),
    key("inference.batch", Integer(1, 64), D("1"), "Tiles computed in one run of the network."),
    key(
        "inference.spinning",
        Bool,
        D("false"),
        "Idle threads of the network spin for work: faster on cores of their own, wasteful on shared ones.",
    ),
    key(
        "inference.cpus",
        Integers(0, 1023),
        O,
        "Processors that the network's helper threads are bound to (the first thread is the stage's own); any when left out.",
    ),
    key("inference.device", Integer(0, 63), D("0"), "Number of the GPU."),
    key("inference.fp16", Bool, D("true"), "TensorRT may compute in 16 bits."),
    key("inference.int8_calibration", Path, O, "TensorRT may compute in 8 bits, with this calibration table; off when left out."),
    key("inference.tf32", Bool, D("false"), "CUDA may compute products with TensorFloat-32 (19 bits)."),
    key(
        "inference.workspace_mib",
        Integer(16, 65_536),
        D("1024"),
        "Memory that TensorRT may use while it builds an engine, MiB.",
    ),
    key("inference.sha256", Text(64), O, "SHA-256 that the model file must have, 64 hexadecimal digits."),
    key(
        "inference.trusted_keys",
        Texts,
        O,
        "Ed25519 public keys, as 64 hexadecimal digits or PEM files: the model must be signed by one of them (MODEL.sig beside it).",
    ),
    key("inference.require_parity", Bool, D("false"), "Refuse a model that brings no golden vector to verify it by."),
    key(
        "inference.tolerance",
        Float(0.000_001, 0.1),
        D("0.001"),
        "Largest difference from the model's golden vector at 32 bits; a session that drifts further is refused.",
    ),
    key("inference.tolerance_reduced", Float(0.000_001, 0.5), D("0.02"), "The same for 16 and 8 bits and TensorFloat-32."),
    key(
        "inference.reload_after",
        Integer(0, 1000),
        D("3"),
        "After so many failed frames in a row the network's session is built anew, on the same provider; 0 = never.",
    ),
    key("decision.threshold", Float(0.0, 1.0), D("0.5"), "A pixel scoring at least this is defective."),
    key(
        "decision.low_threshold",
        Float(0.0, 1.0),
        O,
        "Hysteresis: pixels down to this score join a region that reaches the threshold.",
    ),
    key("decision.min_area_px", Integer(1, 100_000_000), D("12"), "Smallest region that counts, frame pixels."),
    key("decision.merge_distance_px", Integer(0, 64), D("0"), "Regions nearer than this are one defect."),
    key("decision.edge_margin_px", Integer(0, 10_000), D("2"), "This far from the template's edge nothing is judged."),
    key("pipeline.queue_frames", Integer(1, 64), D("4"), "Capacity of each queue between stages."),
    key(
        "pipeline.overload",
        Choice(&["newest", "answer", "wait"]),
        D("\"newest\""),
        "When frames come faster than they are inspected: newest = the oldest waiting frame is dropped and counted; answer = the new one is ERROR OVERRUN; wait = the source waits (recorded frames).",
    ),
    key(
        "pipeline.drain_ms",
        Integer(100, 60_000),
        D("3000"),
        "On a stop signal, frames not inspected after this are recorded as aborted.",
    ),
    key(
        "pipeline.stall_ms",
        Integer(1000, 600_000),
        D("10000"),
        "A stage busy with one frame for longer is stalled: the watchdog is no longer fed.",
    ),
    key(
        "record.max_bytes",
        Integer(1_048_576, 1_099_511_627_776),
        D("2147483648"),
        "Most bytes of results waiting for the broker; at the cap no frame is taken (state error), none is lost.",
    ),
    key("record.max_events", Integer(100, 1_000_000_000), D("10000000"), "Most events waiting for the broker."),
    key(
        "record.min_free_bytes",
        Integer(0, 1_099_511_627_776),
        D("1073741824"),
        "Free space on the disk of the results below which the alarm disk_low is raised; 0 = never.",
    ),
    key("record.history_events", Integer(0, 100_000_000), D("100000"), "Acknowledged events kept as history."),
    key(
        "evidence.enabled",
        Bool,
        D("true"),
        "Archive what was seen of every NG and ERROR: frame, registered template, score map, mask, hashes.",
    ),
    key("evidence.ok_every", Integer(0, 1_000_000_000), D("100"), "Archive one OK of so many too; 0 = none."),
    key(
        "evidence.overlays",
        Choice(&["none", "ng", "all"]),
        D("\"ng\""),
        "Which archived results also get an overlay picture for a person (ng: NG and ERROR).",
    ),
    key("evidence.max_ok_mib", Integer(1, 100_000_000), D("1024"), "Most evidence of OK kept, MiB; the oldest goes first."),
    key("evidence.max_ng_mib", Integer(1, 100_000_000), D("4096"), "Most evidence of NG kept, MiB; the oldest goes first."),
    key("evidence.max_error_mib", Integer(1, 100_000_000), D("512"), "Most evidence of ERROR kept, MiB; the oldest goes first."),
    key(
        "evidence.min_free_mib",
        Integer(0, 100_000_000),
        D("1024"),
        "Disk space that evidence leaves free, MiB: below it the oldest OK goes, then ERROR, then NG, and then nothing more is archived.",
    ),
    key("mqtt.enabled", Bool, D("true"), "Publish over MQTT; when off, events are recorded only."),
    key("mqtt.host", Text(255), D("\"127.0.0.1\""), "The broker's host name or address."),
    key("mqtt.port", Integer(1, 65_535), D("1883"), "The broker's port."),
    key("mqtt.prefix", Text(128), D("\"plant\""), "Path before `/ssds/...` in every topic, for example acme/hz/smt/line3/aoi1."),
    key("mqtt.client_id", Text(64), O, "Client id; ssds-<station.name> when left out. Must be unique at the broker."),
    key("mqtt.protocol", Choice(&["3.1.1", "5"]), D("\"3.1.1\""), "MQTT version."),
    key("mqtt.username", Text(256), O, "User name."),
    key("mqtt.password_file", Path, O, "File holding the password; needs mqtt.username."),
    key("mqtt.tls", Bool, D("false"), "Encrypt the connection."),
    key(
        "mqtt.ca_file",
        Path,
        O,
        "PEM file of the certificate authority that signed the broker's certificate; the system's when left out.",
    ),
    key("mqtt.cert_file", Path, O, "PEM file of this station's own certificate (mutual TLS); needs mqtt.key_file."),
    key("mqtt.key_file", Path, O, "PEM file of its private key."),
    key("mqtt.server_name", Text(253), O, "The name the broker's certificate must bear; mqtt.host when left out."),
    key("mqtt.keep_alive_secs", Integer(1, 3600), D("10"), "MQTT keep-alive."),
    key("mqtt.inflight", Integer(1, 1000), D("100"), "Most result messages sent but not yet acknowledged."),
    key(
        "mqtt.ack_timeout_secs",
        Integer(1, 600),
        D("10"),
        "Time for an acknowledgement, after which the connection counts as broken; results later than twice this are marked replayed.",
    ),
    key("mqtt.reconnect_max_secs", Integer(1, 3600), D("30"), "Longest pause before connecting again."),
    key(
        "mqtt.message_expiry_secs",
        Integer(1, 4_294_967_295),
        O,
        "How long a broker keeps results for absent subscribers; needs mqtt.protocol = \"5\".",
    ),
    key("mqtt.stats_secs", Integer(1, 3600), D("10"), "Interval of the `stats` message."),
    key("mqtt.commands", Bool, D("false"), "Accept commands on `cmd/...`."),
    key("mqtt.command_max_bytes", Integer(64, 65_536), D("4096"), "Longest command; a longer one is refused unread."),
    key("mqtt.command_max_ttl_secs", Integer(1, 3600), D("60"), "Longest ttl_ms of a command."),
    key(
        "mqtt.embedded_broker",
        Bool,
        D("false"),
        "Run a broker inside the daemon on mqtt.port of the loopback address (demo; feature embedded-broker).",
    ),
    key("http.enabled", Bool, D("true"), "Serve health, metrics and the status page."),
    key("http.listen", Text(255), D("\"127.0.0.1:8077\""), "Address and port to serve on; reading needs no login."),
    key(
        "http.token_file",
        Path,
        O,
        "File holding the bearer token (16 characters or more) that changes over the network need; without it they are refused.",
    ),
    key("http.socket", Path, O, "Unix socket to serve on too; who may open it may make changes without the token."),
];

/// The key at `path`.
#[must_use]
pub fn find(path: &str) -> Option<&'static Key> {
    KEYS.iter().find(|k| k.path == path)
}

/// The sections, in the order of the sample file.
#[must_use]
pub fn sections() -> Vec<&'static str> {
    let mut out: Vec<&'static str> = Vec::new();
    for k in KEYS {
        if let Some((section, _)) = k.path.split_once('.')
            && out.last() != Some(&section)
        {
            out.push(section);
        }
    }
    out
}

/// What a type allows, in words: `a number from 0 to 1`.
#[must_use]
pub fn describe(ty: Type) -> String {
    match ty {
        Bool => "true or false".into(),
        Integer(a, b) if a == b => format!("{a}"),
        Integer(a, b) => format!("a whole number from {a} to {b}"),
        Float(a, b) => format!("a number from {a} to {b}"),
        Text(n) => format!("text of 1 to {n} bytes"),
        Name => "a name of lower-case letters, digits, _ and -, starting with a letter or digit, at most 64 bytes".into(),
        Path => "a path".into(),
        Choice(words) => format!("one of {}", words.join(", ")),
        Choices(words) => format!("a list out of {}", words.join(", ")),
        Texts => "a list of texts".into(),
        Integers(a, b) => format!("a list of whole numbers from {a} to {b}"),
    }
}
