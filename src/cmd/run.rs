//! `ssds run`: the daemon.
//!
//! Order of starting: settings, store, template, network (warmed up), broker client, pipeline, `READY=1`. Wrong settings and missing
//! files end the process with their exit code; a missing camera or broker is retried for ever and shown in the state.

mod commands;
mod trigger;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use sd_notify::NotifyState;

use crate::align;
use crate::capture::{self, Trigger};
use crate::clock::{Clock, SystemClock};
use crate::config::{self, Config};
use crate::decide;
use crate::error::{Error, Kind, Result};
use crate::frame::Gray;
use crate::infer::Detector;
use crate::pipeline::event::clock_state;
use crate::pipeline::event::{Station, model_ref};
use crate::pipeline::evidence::{Archivist, Overlays};
use crate::pipeline::ledger::Balance;
use crate::pipeline::source::Overload;
use crate::pipeline::supervisor::{Supervisor, notify};
use crate::pipeline::{ActiveProduct, Hold, Parts, Pipeline, Settings, drift};
use crate::publish::{self, Identity, Link, PublishSettings, Publisher, TlsSettings};
use crate::record::archive::writer::{Counts, Writer};
use crate::record::event::TemplateRef;
use crate::record::message::ActiveRecipe;
use crate::record::store::Admission;
use crate::record::store::{Store, StoreReader, StoreSettings};
use crate::residual;
use crate::shutdown::Shutdown;
use crate::status::live::Live;
use crate::status::report::{Reporter, ReporterParts};
use crate::status::{Status, http};
use crate::telemetry::Telemetry;

/// A stop ends within this time, whatever happens.
const STOP_LIMIT: Duration = Duration::from_millis(4_700);
/// At a stop the publisher gets this long for what the broker has not taken yet.
const PUBLISH_LIMIT: Duration = Duration::from_millis(1_500);
/// The same at the end of recorded frames, where nobody waits for the process to end.
const PUBLISH_LIMIT_AT_END: Duration = Duration::from_secs(20);
/// How often the supervisor looks.
const TICK: Duration = Duration::from_millis(100);
/// Time that the service manager grants from one step of loading the network to the next; the steps of building an engine come every second.
const START_EXTENSION: Duration = Duration::from_secs(120);
/// Every so many looks it asks whether another recipe was applied.
const RECIPE_TICKS: u32 = 10;

pub use super::product::load as load_product;
use super::product::of_recipe as product_of;
use crate::pipeline::job::Product;

/// How to run.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Configuration file.
    #[arg(long, default_value = "/etc/ssds/ssds.toml")]
    config: PathBuf,
    /// Stop after so many seconds; 0 = run until stopped.
    #[arg(long, default_value_t = 0)]
    seconds: u64,
}

/// Runs until stopped.
///
/// # Errors
/// What keeps the daemon from starting, or results that could not be kept.
pub fn run(args: Args) -> Result<u8> {
    let config = config::load(&args.config)?;
    let shutdown = Shutdown::new();
    shutdown.listen()?;
    Daemon::start(&config, shutdown)?.supervise(args.seconds)
}

/// The started daemon.
struct Daemon {
    pipeline: Pipeline,
    supervisor: Supervisor,
    shutdown: Shutdown,
    status: Status,
    telemetry: Telemetry,
    clock: Arc<dyn Clock>,
    started: Instant,
    config: Config,
    product: ActiveProduct,
    /// Hash of the recipe in force, none = as configured.
    recipe: Option<String>,
    publisher: Option<Publisher>,
    reporter: Reporter,
    /// Another template was put in force over HTTP.
    product_changed: Arc<AtomicBool>,
    self_test: Option<commands::SelfTest>,
    #[cfg(feature = "embedded-broker")]
    _broker: Option<publish::broker::EmbeddedBroker>,
}

impl Daemon {
    fn start(config: &Config, shutdown: Shutdown) -> Result<Self> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let (telemetry, status) = (Telemetry::new(), Status::new());
        log::info!("ssds {} station {} starting", env!("CARGO_PKG_VERSION"), config.text("station.name"));
        telemetry
            .gauge("ssds_build_info", "Always 1; the version is in the label.", &[("version", env!("CARGO_PKG_VERSION"))])
            .set(1.0);

        let store = open_store(config, Arc::clone(&clock))?;
        status.update(|f| f.store_ready = true);
        let live = Live::new();
        let http = if config.bool("http.enabled") {
            Some(start_http(config, &store, &status, &telemetry, &clock, live.clone())?)
        } else {
            None
        };
        let recipe = super::recipe::book(config)?.active()?.map(|a| a.sha256);
        let product = load_product(config)?;
        status.update(|f| f.template_ready = true);
        // The capture stage tells the mode once the camera runs in it.
        let trigger = product.trigger.unwrap_or(Trigger::of(config));
        status.update(|f| f.triggered = trigger != Trigger::Free);
        let detector = start_detector(config, &product.template.image, &status)?;
        status.update(|f| f.model_ready = true);
        let info = detector.info();
        log::info!(
            "model {} {} on {} {}, ONNX Runtime {}, {}",
            info.name,
            info.version,
            info.provider,
            info.precision,
            info.runtime_version,
            info.parity
        );
        telemetry
            .gauge(
                "ssds_provider_info",
                "Always 1; what computes the network is in the labels.",
                &[
                    ("provider", info.provider),
                    ("precision", info.precision),
                    ("library", &info.runtime_version),
                    ("model", &info.name),
                    ("model_version", &info.version),
                ],
            )
            .set(1.0);
        let station = Station {
            name: config.text("station.name"),
            boot_id: store.boot_id().to_owned(),
            config_sha256: config.sha256.clone(),
            simulated: config.bool("station.simulated"),
            product: config.text("product.name"),
            model: model_ref(info),
        };

        #[cfg(feature = "embedded-broker")]
        let broker = embedded_broker(config)?;
        let template = TemplateRef {
            id: product.template.id.clone(),
            version: product.template.version,
            sha256: product.template.sha256.clone(),
        };
        let publisher = start_publisher(config, &store, &station, &template, &clock)?;
        let handle = publisher.as_ref().map(Publisher::handle);
        let reader = store.reader()?;
        let fallback = info.fallbacks.first().map(|(p, why)| format!("{p} cannot be used: {why}; running on {}", info.provider));
        let (watch, events) = crossbeam_channel::bounded(1024);

        let pipeline_settings = pipeline_settings(config);
        let (camera_config, camera_clock) = (config.clone(), Arc::clone(&clock));
        let (bell, report_station) = (handle.clone(), station.clone());
        let model = super::model::info_json(info);
        let active_product: ActiveProduct = Arc::new(RwLock::new(Some(Arc::new(product))));
        let parts = Parts {
            open_camera: Arc::new(move |trigger| capture::open_with(&camera_config, trigger, Arc::clone(&camera_clock))),
            product: Arc::clone(&active_product),
            detector,
            store,
            station,
            committed: Box::new(move || {
                if let Some(bell) = &bell {
                    bell.notify();
                }
            }),
            archive: archive(config, &telemetry),
            watch: Some(watch),
            live: http.is_some().then_some(live),
            shutdown: shutdown.clone(),
            status: status.clone(),
            clock: Arc::clone(&clock),
            telemetry: telemetry.clone(),
        };
        let pipeline = Pipeline::start(&pipeline_settings, parts)?;
        let supervisor = Supervisor::new(pipeline.pulses(), config.duration("pipeline.stall_ms"), clock.as_ref());
        let product_changed = Arc::new(AtomicBool::new(false));
        if let Some(http) = &http {
            let teach_config = config.clone();
            http.attach(http::Line {
                ledger: pipeline.ledger.clone(),
                publish: handle.clone(),
                model,
                product: Arc::clone(&active_product),
                hold: pipeline.hold.clone(),
                product_changed: Arc::clone(&product_changed),
                trigger: pipeline.trigger.clone(),
                trigger_wait: config.duration("camera.trigger_timeout_ms") + http::RESULT_WAIT,
                teach: Box::new(move |product, image, note| super::teach::teach(&teach_config, product, image, note)),
            });
        }
        let reporter = Reporter::new(ReporterParts {
            handle,
            reader,
            status: status.clone(),
            ledger: pipeline.ledger.clone(),
            clock: Arc::clone(&clock),
            station: report_station.name.clone(),
            boot_id: report_station.boot_id.clone(),
            recipe: Some(ActiveRecipe { product: report_station.product.clone(), template }),
            model: report_station.model.clone(),
            events,
            fallback,
            min_free_bytes: config.usize("record.min_free_bytes") as u64,
            interval: config.duration("mqtt.stats_secs"),
        });
        notify(&[NotifyState::Ready]);
        log::info!("ready");
        Ok(Self {
            pipeline,
            supervisor,
            shutdown,
            status,
            telemetry,
            clock,
            started: Instant::now(),
            config: config.clone(),
            product: active_product,
            recipe,
            publisher,
            reporter,
            product_changed,
            self_test: None,
            #[cfg(feature = "embedded-broker")]
            _broker: broker,
        })
    }

    /// Switches to another recipe once it was applied; one that does not load leaves the one before in force.
    fn follow_recipe(&mut self) {
        let active = super::recipe::book(&self.config).and_then(|b| b.active());
        let now = match active {
            Ok(active) => active.map(|a| a.sha256),
            Err(e) => {
                log::error!("{e:#}; the recipe before it stays in force");
                return;
            }
        };
        // One or the other: a template activated over HTTP, or a recipe.
        if !self.product_changed.swap(false, Ordering::SeqCst) && now == self.recipe {
            return;
        }
        self.recipe = now;
        match load_product(&self.config) {
            Ok(product) => self.put_in_force(product),
            Err(e) => log::error!("{e:#}; the recipe before it stays in force"),
        }
    }

    /// Notes whether the camera's values are those under which the template in force was taught.
    fn compare_with_taught(&self) {
        let product = self.product.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        let facts = self.status.facts();
        let now = product.map_or_else(Vec::new, |p| capture::differences(&p.template.meta.camera, &facts.camera_values));
        if now != facts.template_stale {
            if !now.is_empty() {
                log::warn!("the template was taught with other camera values: {}", now.join("; "));
            }
            self.status.update(|f| f.template_stale = now);
        }
    }

    /// From the next frame on, frames are compared with `product`; state and birth say so.
    fn put_in_force(&mut self, product: Product) {
        let template = TemplateRef {
            id: product.template.id.clone(),
            version: product.template.version,
            sha256: product.template.sha256.clone(),
        };
        log::info!("recipe switched: template {} version {}", template.id, template.version);
        let name = product.template.product().to_owned();
        *self.product.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(Arc::new(product));
        if let Some(publisher) = &self.publisher {
            publisher.handle().set_template(template.clone());
        }
        self.reporter.set_recipe(ActiveRecipe { product: name, template });
    }

    /// Looks after the running line until it is asked to stop, then ends it in order.
    fn supervise(mut self, seconds: u64) -> Result<u8> {
        let mut ticks = 0u32;
        let mut told = String::new();
        while !self.shutdown.asked() && !self.pipeline.is_finished() {
            if seconds > 0 && self.started.elapsed() >= Duration::from_secs(seconds) {
                self.shutdown.ask();
            }
            self.supervisor.tick(self.clock.as_ref());
            self.pipeline.measure_queues();
            ticks = ticks.wrapping_add(1);
            if ticks.is_multiple_of(RECIPE_TICKS) {
                self.follow_recipe();
                self.compare_with_taught();
            }
            // At the cap nothing is dropped: no frame is taken until the broker has taken results.
            let full = self.reporter.admission() == Admission::Full;
            if self.pipeline.hold.set(Hold::SPOOL, full) {
                let what = if full { "is at its cap: no frame is taken" } else { "has room again: frames are taken" };
                log::warn!("the outbox {what}");
            }
            self.reporter.tick();
            self.answer_commands();
            let line = self.line();
            if line != told {
                notify(&[NotifyState::Status(&line)]);
                told = line;
            }
            self.clock.sleep(TICK);
        }
        notify(&[NotifyState::Stopping]);
        log::info!("stopping");
        let (asked, at_end) = (Instant::now(), !self.shutdown.asked());
        let ledger = self.pipeline.ledger.clone();
        let clean = self.pipeline.drain(asked + STOP_LIMIT - Duration::from_millis(500));
        self.status.update(|f| f.halted = true);
        self.reporter.tick();
        if let Some(publisher) = self.publisher.take() {
            let left = STOP_LIMIT.saturating_sub(asked.elapsed()).min(PUBLISH_LIMIT).max(Duration::from_millis(200));
            let left = if at_end { PUBLISH_LIMIT_AT_END } else { left };
            let report = publisher.shutdown(left);
            if report.outbox_events > 0 {
                log::warn!("{} results wait for the broker; they are sent after the next start", report.outbox_events);
            }
        }
        summary(&ledger.balance(), &self.telemetry, self.started.elapsed());
        if let Some(error) = self.status.take_fatal() {
            return Err(error);
        }
        if !clean {
            return Err(Error::internal(format!("the line did not stop within {:.1} s", STOP_LIMIT.as_secs_f64())));
        }
        Ok(0)
    }
}

impl Daemon {
    /// State, broker and what is amiss in one line, for `systemctl status` and for deployment, which waits for `broker online`.
    fn line(&self) -> String {
        let link = match self.publisher.as_ref().map(|p| p.status().link) {
            None => "off",
            Some(Link::Connecting) => "connecting",
            Some(Link::Online) => "online",
            Some(Link::Refused { .. }) => "refuses",
            Some(Link::Unreachable { .. }) => "unreachable",
            Some(Link::Stopped) => "stopped",
        };
        let reasons: String = self.status.reasons().iter().map(|r| format!("; {r}")).collect();
        format!("{}; broker {link}{reasons}", self.status.state().word())
    }
}

/// The last lines of a run: what came in, what became of it, time per stage.
fn summary(balance: &Balance, telemetry: &Telemetry, ran: Duration) {
    let verdicts = ["OK", "NG", "ERROR"].map(|v| telemetry.counter("ssds_inspections_total", "", &[("verdict", v)]).get());
    log::info!(
        "ran {:.1} s: {} frames = {} recorded ({} OK, {} NG, {} ERROR) + {} dropped + {} lost",
        ran.as_secs_f64(),
        balance.captured,
        balance.recorded,
        verdicts[0],
        verdicts[1],
        verdicts[2],
        balance.dropped,
        balance.lost
    );
    for stage in ["capture", "align", "infer", "decide", "record"] {
        let s = telemetry.histogram("ssds_stage_duration_seconds", "", &[("stage", stage)]).summary();
        log::info!("stage {stage:<8} mean {:.2} ms, worst {:.2} ms over {} frames", s.mean * 1e3, s.max * 1e3, s.count);
    }
}

/// Serves state, page and API from now on.
fn start_http(
    config: &Config,
    store: &Store,
    status: &Status,
    telemetry: &Telemetry,
    clock: &Arc<dyn Clock>,
    live: Live,
) -> Result<http::Http> {
    let listen = config.text("http.listen");
    let listen = listen.parse().map_err(|_| Error::config(format!("http.listen must be ADDRESS:PORT, got {listen:?}")))?;
    let state = config.path("paths.state_dir");
    let access = http::access::Access::open(config.path_opt("http.token_file").as_deref(), &state, Arc::clone(clock))?;
    let parts = http::Parts {
        status: status.clone(),
        telemetry: telemetry.clone(),
        clock: Arc::clone(clock),
        live,
        reader: store.reader()?,
        folders: http::Folders {
            templates: config.template_dir(),
            recipes: state.join("recipes"),
            archive: config.archive_dir(),
        },
        access,
        station: config.text("station.name"),
        config: config.effective(),
    };
    http::Http::start(listen, config.path_opt("http.socket").as_deref(), parts)
}

/// Starts the publisher, unless it is switched off.
fn start_publisher(
    config: &Config,
    store: &Store,
    station: &Station,
    template: &TemplateRef,
    clock: &Arc<dyn Clock>,
) -> Result<Option<Publisher>> {
    if !config.bool("mqtt.enabled") {
        log::warn!("mqtt.enabled is false: results are recorded, not published");
        return Ok(None);
    }
    let identity = Identity {
        boot_id: station.boot_id.clone(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        clock: clock_state(),
        model: Some(station.model.clone()),
        template: Some(template.clone()),
    };
    Publisher::start(publish_settings(config), store.reader()?, identity, Arc::clone(clock)).map(Some)
}

/// The publisher's settings.
#[must_use]
pub fn publish_settings(config: &Config) -> PublishSettings {
    PublishSettings {
        host: config.text("mqtt.host"),
        port: u16::try_from(config.i64("mqtt.port")).unwrap_or(1883),
        prefix: config.text("mqtt.prefix"),
        station: config.text("station.name"),
        client_id: config.text_opt("mqtt.client_id").unwrap_or_default(),
        protocol: if config.text("mqtt.protocol") == "5" { publish::Protocol::V5 } else { publish::Protocol::V311 },
        keep_alive: config.duration("mqtt.keep_alive_secs"),
        tls: config.bool("mqtt.tls").then(|| {
            let default = TlsSettings::default();
            TlsSettings {
                ca_file: config.path_opt("mqtt.ca_file").unwrap_or(default.ca_file),
                cert_file: config.path_opt("mqtt.cert_file"),
                key_file: config.path_opt("mqtt.key_file"),
                server_name: config.text_opt("mqtt.server_name"),
            }
        }),
        username: config.text_opt("mqtt.username"),
        password_file: config.path_opt("mqtt.password_file"),
        window: u16::try_from(config.i64("mqtt.inflight")).unwrap_or(100),
        publish_timeout: config.duration("mqtt.ack_timeout_secs"),
        reconnect_max: config.duration("mqtt.reconnect_max_secs"),
        message_expiry: config.has("mqtt.message_expiry_secs").then(|| config.duration("mqtt.message_expiry_secs")),
        commands: publish::CommandSettings {
            enabled: config.bool("mqtt.commands"),
            max_bytes: config.usize("mqtt.command_max_bytes"),
            max_ttl: config.duration("mqtt.command_max_ttl_secs"),
            ..publish::CommandSettings::default()
        },
        ..PublishSettings::default()
    }
}

#[cfg(feature = "embedded-broker")]
fn embedded_broker(config: &Config) -> Result<Option<publish::broker::EmbeddedBroker>> {
    if !config.bool("mqtt.embedded_broker") {
        return Ok(None);
    }
    let broker = publish::broker::EmbeddedBroker::start(u16::try_from(config.i64("mqtt.port")).unwrap_or(0))?;
    log::info!("embedded MQTT broker on 127.0.0.1:{}", broker.port());
    Ok(Some(broker))
}

fn pipeline_settings(config: &Config) -> Settings {
    Settings {
        queue_frames: config.usize("pipeline.queue_frames"),
        overload: match config.text("pipeline.overload").as_str() {
            "answer" => Some(Overload::Answer),
            "wait" => Some(Overload::Wait),
            _ => None,
        },
        camera_timeout: config.duration("camera.timeout_ms"),
        max_age: config.duration("camera.max_age_ms"),
        drain: config.duration("pipeline.drain_ms"),
        trigger: Trigger::of(config),
        trigger_word: (config.text("camera.backend") == "replay").then_some("replay"),
        trigger_timeout: config.duration("camera.trigger_timeout_ms"),
        stall: config.duration("pipeline.stall_ms"),
        frozen_frames: u32::try_from(config.i64("camera.frozen_frames")).unwrap_or(0),
        drift: drift::Settings {
            parts: config.usize("drift.parts"),
            limit: config.f64("drift.limit"),
            folder: Some(config.path("paths.state_dir").join("drift")),
        },
        residual: residual_settings(config),
    }
}

/// Registration's settings.
#[must_use]
pub fn align_settings(config: &Config) -> align::Settings {
    align::Settings {
        max_rotation_degrees: config.f64("align.max_rotation_degrees"),
        min_scale: config.f64("align.min_scale"),
        max_scale: config.f64("align.max_scale"),
        min_confidence: config.f64("align.min_confidence"),
        model: if config.text("align.model") == "affine" { align::Model::Affine } else { align::Model::Similarity },
        track: config.bool("align.track"),
        ..align::Settings::default()
    }
}

/// What removes the shift that registration leaves; `None` = off.
#[must_use]
pub fn residual_settings(config: &Config) -> Option<residual::Settings> {
    let reach_px = config.usize("align.residual_px");
    (reach_px > 0).then(|| residual::Settings { reach_px, ..residual::Settings::default() })
}

/// The decision's settings.
#[must_use]
pub fn decision_settings(config: &Config) -> decide::Settings {
    decide::Settings {
        threshold: config.f64("decision.threshold") as f32,
        low_threshold: config.f64_opt("decision.low_threshold").map(|v| v as f32),
        min_area_px: config.usize("decision.min_area_px"),
        merge_distance_px: config.usize("decision.merge_distance_px"),
        edge_margin_px: config.usize("decision.edge_margin_px"),
        ..decide::Settings::default()
    }
}

/// Loads the network, checks it and warms it up.
///
/// # Errors
/// As [`Detector::open`].
pub fn open_detector(config: &Config) -> Result<Detector> {
    Detector::open(&super::model::settings_of(config)?)
}

/// The same for the daemon: warmed up at the size that frames will have, and telling state and service manager how far it is. An engine
/// takes minutes to build, so the manager's start time-out is extended with every step.
fn start_detector(config: &Config, template: &Gray, status: &Status) -> Result<Detector> {
    let mut settings = super::model::settings_of(config)?;
    // The camera may not be there yet; frames are most often of the template's size.
    settings.warm_up_px.get_or_insert(template.size());
    Detector::open_with(&settings, &|progress| {
        let text = progress.to_string();
        status.update(|f| f.model_progress.clone_from(&text));
        let extension = u32::try_from(START_EXTENSION.as_micros()).unwrap_or(u32::MAX);
        notify(&[NotifyState::Status(&format!("model: {text}")), NotifyState::ExtendTimeoutUsec(extension)]);
    })
}

fn store_settings(config: &Config) -> StoreSettings {
    StoreSettings {
        station: config.text("station.name"),
        max_outbox_events: config.usize("record.max_events") as u64,
        max_outbox_bytes: config.usize("record.max_bytes") as u64,
        history_events: config.usize("record.history_events") as u64,
        ..StoreSettings::default()
    }
}

fn open_store(config: &Config, clock: Arc<dyn Clock>) -> Result<Store> {
    let folder = config.path("paths.state_dir");
    std::fs::create_dir_all(&folder)
        .map_err(|e| Error::io(format!("paths.state_dir {}", folder.display()), e).with_kind(Kind::CannotCreate))?;
    let path = folder.join("ssds.db");
    let (store, report) = Store::open(&path, store_settings(config), clock)?;
    log::info!("store {}: last seq {}, {} events wait for the broker", path.display(), report.last_seq, report.outbox_events);
    if let Some(damage) = &report.damage {
        log::error!(
            "store {}: was damaged ({}): {} events kept, {} lost",
            path.display(),
            damage.finding,
            damage.kept,
            damage.lost
        );
    } else if report.unclean {
        log::warn!("store {}: the last run did not close it; nothing is missing", path.display());
    }
    Ok(store)
}

/// Whether the store is in order, for `ssds check`; looks without changing anything, also beside a running daemon.
///
/// # Errors
/// [`Kind::Data`] naming the damage, [`Kind::Config`] for another station's file, else the system's.
pub fn check_store(config: &Config) -> Result<String> {
    let path = config.path("paths.state_dir").join("ssds.db");
    if !path.exists() {
        return Ok(format!("{}: will be made at the first start", path.display()));
    }
    let (reader, station) = StoreReader::open_read_only(&path)?;
    let name = config.text("station.name");
    if station != name {
        return Err(Error::config(format!("{}: belongs to station {station}, but station.name is {name}", path.display())));
    }
    let found = reader.examine()?;
    let mut damage: Vec<String> = found.finding.into_iter().collect();
    if found.unreadable > 0 {
        damage.push(format!("{} unacknowledged events do not match their checksum", found.unreadable));
    }
    if !damage.is_empty() {
        let damage = damage.join("; ");
        return Err(Error::data(format!(
            "{}: damaged: {damage}; the next start keeps what decodes and raises the alarm spool_damaged for the rest",
            path.display()
        )));
    }
    let earlier = match found.set_aside {
        0 => String::new(),
        n => format!(", {n} damaged events were set aside earlier"),
    };
    Ok(format!(
        "{}: last seq {}, {} events wait for the broker{earlier}",
        path.display(),
        reader.last_seq(),
        reader.outbox_events()
    ))
}

/// Whether a daemon holds this configuration's store.
#[must_use]
pub fn daemon_runs(config: &Config) -> bool {
    let path = config.path("paths.state_dir").join("ssds.db");
    let opened = path.exists().then(|| Store::open(&path, store_settings(config), Arc::new(SystemClock)));
    matches!(opened, Some(Err(e)) if e.kind() == Kind::TryAgain)
}

/// The archive, unless it is switched off.
fn archive(config: &Config, telemetry: &Telemetry) -> Option<Archivist> {
    if !config.bool("evidence.enabled") {
        return None;
    }
    let overlays = match config.text("evidence.overlays").as_str() {
        "none" => Overlays::None,
        "all" => Overlays::All,
        _ => Overlays::NotOk,
    };
    let writer = Writer::new(super::archive::writer_settings(config), Counts::new(telemetry));
    Some(Archivist::new(writer, overlays, config.usize("evidence.ok_every") as u64))
}
