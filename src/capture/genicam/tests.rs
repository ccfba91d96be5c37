//! Against the library's own GigE Vision camera on the loopback interface. Its pattern is a diagonal ramp that moves by one a frame: pixel
//! (x, y) of block n in Mono8 is `(x + n + y) % 255` times `1 + gain + log10(exposure / 10 ms)`, cut to 0..255, so every delivered picture can be
//! checked to the last pixel.

use super::*;
use crate::clock::SystemClock;

/// The loopback camera; one at a time on a machine, because its port is fixed.
pub(crate) struct Fake {
    camera: Option<aravis::GvFakeCamera>,
    _lock: std::fs::File,
}

impl Fake {
    pub(crate) const ADDRESS: &str = "127.0.0.1";

    pub(crate) fn start() -> Self {
        let path = std::env::temp_dir().join("ssds-loopback-camera.lock");
        let lock = std::fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path).unwrap();
        lock.lock().unwrap();
        let mut this = Self { camera: None, _lock: lock };
        this.plug();
        this
    }

    pub(crate) fn plug(&mut self) {
        let camera = aravis::GvFakeCamera::new(Some(Self::ADDRESS), Some("SSDS1"));
        assert!(camera.is_running(), "the loopback camera does not run");
        self.camera = Some(camera);
    }

    pub(crate) fn unplug(&mut self) {
        self.camera = None;
    }

    pub(crate) fn lose(&self, ratio: f64) {
        self.camera.as_ref().unwrap().set_gvsp_lost_ratio(ratio);
    }
}

pub(crate) fn settings() -> Settings {
    Settings {
        width: Some(320),
        height: Some(200),
        frame_rate: Some(40.0),
        exposure_us: Some(10_000.0),
        gain: Some(0.0),
        ..Settings::new(Fake::ADDRESS)
    }
}

fn open(settings: Settings) -> GenIcam {
    GenIcam::open(settings, Arc::new(SystemClock)).unwrap()
}

fn frame(camera: &mut GenIcam) -> Captured {
    match camera.grab(Duration::from_secs(5)).unwrap() {
        Grab::Frame(f) => f,
        other => panic!("wanted a frame, got {other:?}"),
    }
}

/// Whether `image` is the whole pattern of one block: every pixel follows from the first.
pub(crate) fn is_whole(image: &Gray) -> bool {
    let first = usize::from(image.get(0, 0));
    (0..image.height()).all(|y| (0..image.width()).all(|x| usize::from(image.get(x, y)) == (first + x + y) % 255))
}

#[test]
fn frames_are_whole_numbered_and_fresh() {
    let _fake = Fake::start();
    let mut camera = open(settings());
    assert!(camera.describe().contains("by genicam, 320x200 Mono8"), "{}", camera.describe());
    let mut last: Option<Captured> = None;
    for _ in 0..20 {
        let f = frame(&mut camera);
        assert_eq!(f.image.size(), (320, 200));
        assert!(is_whole(&f.image));
        assert_eq!(u64::from(f.image.get(0, 0)), f.device_sequence % 255, "the pattern is that of its block");
        let age = SystemClock.mono_ns() - f.captured_mono_ns;
        assert!(age < 5_000_000_000, "{age}");
        if let Some(last) = &last {
            assert!(f.device_sequence > last.device_sequence);
            assert!(f.device_time_ns > last.device_time_ns);
            assert!(f.captured_mono_ns > last.captured_mono_ns);
        }
        last = Some(f);
    }
    assert_eq!(camera.losses().incomplete, 0);
    let values = camera.values();
    assert_eq!((values["exposure_us"].as_str(), values["gain"].as_str(), values["format"].as_str()), ("10000", "0", "Mono8"));
}

#[test]
fn a_region_exposure_and_gain_are_taken_and_show_in_the_picture() {
    let _fake = Fake::start();
    let asked = Settings {
        offset_x: Some(16),
        offset_y: Some(8),
        width: Some(97),
        height: Some(53),
        exposure_us: Some(100_000.0),
        ..settings()
    };
    let mut camera = open(asked);
    let f = frame(&mut camera);
    assert_eq!(f.image.size(), (97, 53));
    // Ten times the exposure is one more in the pattern's scale: 1 + log10(10) = 2.
    let base = f.device_sequence as usize;
    for y in 0..53 {
        for x in 0..97 {
            assert_eq!(usize::from(f.image.get(x, y)), ((x + y + base) % 255 * 2).min(255), "({x},{y})");
        }
    }
    assert_eq!(camera.values()["region"], "16,8 97x53");
    drop(camera);
    let mut camera = open(Settings { gain: Some(1.0), ..settings() });
    let f = frame(&mut camera);
    assert_eq!(usize::from(f.image.get(5, 0)), ((5 + f.device_sequence as usize) % 255 * 2).min(255));
}

#[test]
fn sixteen_bits_and_mosaics_become_gray() {
    let _fake = Fake::start();
    let mut camera = open(Settings { format: Some("Mono16".into()), ..settings() });
    let f = frame(&mut camera);
    let base = f.device_sequence;
    for (x, y) in [(0, 0), (7, 3), (319, 199)] {
        let raw = (256 * (x as u64 + base + y as u64)) % 65_535;
        let want = (raw as f64 * 255.0 / 65_535.0).round() as u8;
        assert_eq!(f.image.get(x, y), want, "({x},{y})");
    }
    drop(camera);
    for format in ["BayerRG8", "BayerBG8", "BayerGR8", "BayerGB8"] {
        let mut camera = open(Settings { format: Some(format.into()), ..settings() });
        assert_eq!(frame(&mut camera).image.size(), (320, 200), "{format}");
        assert_eq!(camera.values()["format"], format);
    }
}

#[test]
fn each_software_trigger_brings_one_frame() {
    let _fake = Fake::start();
    let mut camera = open(Settings { trigger: Trigger::Software, frame_rate: None, ..settings() });
    assert!(camera.may_be_silent());
    assert!(matches!(camera.grab(Duration::from_millis(300)).unwrap(), Grab::Idle), "no trigger, no frame");
    let mut last = None;
    for _ in 0..5 {
        camera.trigger().unwrap();
        let f = frame(&mut camera);
        assert!(is_whole(&f.image));
        assert!(matches!(camera.grab(Duration::from_millis(150)).unwrap(), Grab::Idle), "one frame a trigger");
        if let Some(last) = last {
            assert_eq!(f.device_sequence, last + 1);
        }
        last = Some(f.device_sequence);
    }
    drop(camera);
    let error = open(settings()).trigger().unwrap_err();
    assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Usage, "camera 127.0.0.1: is not in software trigger mode"));
}

#[test]
fn a_hardware_trigger_is_set_up_and_waits() {
    let _fake = Fake::start();
    let asked = Settings { trigger: Trigger::Hardware, trigger_source: "Line0".into(), frame_rate: None, ..settings() };
    let mut camera = open(asked.clone());
    assert!(camera.may_be_silent());
    assert!(matches!(camera.grab(Duration::from_millis(300)).unwrap(), Grab::Idle));
    drop(camera);
    let error =
        GenIcam::open(Settings { trigger_source: "Line9".into(), ..asked }, Arc::new(SystemClock)).map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("setting trigger Line9"), "{error}");
}

#[test]
fn incomplete_buffers_are_counted_by_status_and_never_delivered() {
    let fake = Fake::start();
    let mut camera = open(Settings { frame_rate: Some(60.0), ..settings() });
    frame(&mut camera);
    fake.lose(0.05);
    let until = Instant::now() + Duration::from_secs(60);
    let mut delivered = 0;
    while camera.losses().incomplete < 5 || delivered < 5 {
        assert!(Instant::now() < until, "{:?} after {delivered} frames", camera.losses());
        if let Grab::Frame(f) = camera.grab(Duration::from_millis(500)).unwrap() {
            delivered += 1;
            assert!(is_whole(&f.image), "block {}", f.device_sequence);
            assert_eq!(u64::from(f.image.get(0, 0)), f.device_sequence % 255);
        }
        // A chance of each frame being whole, too.
        if camera.losses().incomplete >= 5 {
            fake.lose(0.0);
        }
    }
    let losses = camera.losses();
    assert_eq!(losses.by_status.values().sum::<u64>(), losses.incomplete, "{losses:?}");
    // Of an incomplete frame the number may be lost too; that is no gap of thousands.
    assert!(losses.missing <= losses.incomplete, "{losses:?}");
}

#[test]
fn values_that_are_not_taken_name_both() {
    let _fake = Fake::start();
    let refused = |settings: Settings| GenIcam::open(settings, Arc::new(SystemClock)).map(|_| ()).unwrap_err();
    let format = refused(Settings { format: Some("Mono12p".into()), ..settings() });
    assert_eq!(format.kind(), Kind::Config);
    assert!(format.to_string().contains("wanted Mono12p"), "{format}");
    let unreadable = refused(Settings { format: Some("RGB8".into()), ..settings() });
    assert!(unreadable.to_string().contains("wanted RGB8 (only Mono8, "), "{unreadable}");
    // The rate is a whole number of microseconds a frame, so this one is far from any; gain has whole steps.
    let gain = refused(Settings { gain: Some(1.5), ..settings() });
    assert!(gain.to_string().contains("gain was set to 1.5, but the device reads back 1"), "{gain}");
    let size = refused(Settings { width: Some(60_000), ..settings() });
    assert!(size.to_string().contains("region"), "{size}");
    let unknown = refused(Settings { controls: vec![("NoSuch".into(), "1".into())], ..settings() });
    assert_eq!((unknown.kind(), unknown.to_string().as_str()), (Kind::Config, "camera 127.0.0.1: has no control NoSuch"));
}

#[test]
fn further_controls_and_packets_are_set_and_read_back() {
    let _fake = Fake::start();
    let asked = Settings {
        controls: vec![("BinningHorizontal".into(), "2".into()), ("GainAuto".into(), "Off".into())],
        packet_size: Some(1400),
        packet_delay_ns: Some(0),
        ..settings()
    };
    let camera = open(asked);
    assert_eq!(camera.values()["BinningHorizontal"], "2");
    assert_eq!(camera.camera.gv_get_packet_size().unwrap(), 1400);
}

#[test]
fn a_camera_that_goes_is_noticed_and_comes_back() {
    let mut fake = Fake::start();
    let triggered = Settings { trigger: Trigger::Software, frame_rate: None, ..settings() };
    for settings in [settings(), triggered] {
        let mut camera = open(settings.clone());
        if settings.trigger == Trigger::Software {
            camera.trigger().unwrap();
        }
        frame(&mut camera);
        fake.unplug();
        // The stream falls silent, and a sign of life is asked for in vain.
        let until = Instant::now() + Duration::from_secs(20);
        let error = loop {
            match camera.grab(Duration::from_millis(100)) {
                Ok(_) => assert!(Instant::now() < until, "nobody noticed"),
                Err(e) => break e,
            }
        };
        assert_eq!(error.kind(), Kind::Unavailable, "{error}");
        drop(camera);
        let gone = GenIcam::open(settings.clone(), Arc::new(SystemClock)).map(|_| ()).unwrap_err();
        assert_eq!(gone.kind(), Kind::Unavailable, "{gone}");
        fake.plug();
        let mut camera = open(settings.clone());
        if settings.trigger == Trigger::Software {
            camera.trigger().unwrap();
        }
        assert!(is_whole(&frame(&mut camera).image));
    }
}

#[test]
fn a_camera_is_found_by_name_and_says_what_it_offers() {
    let _fake = Fake::start();
    let found = find();
    let ours = found.iter().find(|f| f.id.ends_with("SSDS1")).unwrap_or_else(|| panic!("not in {found:?}"));
    assert_eq!(ours.protocol, "GigEVision");
    let offers = offers(&ours.id).unwrap();
    assert!(offers["formats"].as_array().unwrap().iter().any(|f| f == "Mono8"), "{offers}");
    assert!(offers["controls"]["exposure_us"]["max"].as_f64().unwrap() > 1e6, "{offers}");
    let mut camera = open(Settings { device: ours.id.clone(), ..settings() });
    assert!(is_whole(&frame(&mut camera).image));
}
