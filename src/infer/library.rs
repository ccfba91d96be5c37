//! Finds and loads the ONNX Runtime library, once a process.
//!
//! The library is no link-time dependency: a Jetson board brings its own build, a plain machine the one out of the PyPI wheel. Places, in
//! this order: the setting (a file, or a folder that holds it), the environment variable `ORT_DYLIB_PATH`, the folder of the running
//! program, `/usr/lib/ssds`, the system's library folders. A place that somebody *named* (setting, variable) must work: nothing else is
//! tried after it. A place that is only customary is passed over with a warning when its library does not fit. The error names every place
//! with what was wrong there.
//!
//! A GPU build needs NVIDIA's own libraries, which the dynamic loader looks for in the system's folders only. Those that lie in the same
//! folder as ONNX Runtime ([`Library::load_companions`]) are taken from there, so that one folder holds all that a station needs.
//!
//! Limits: one library a process, for good (ONNX Runtime cannot be unloaded); asking for another one afterwards is an error. At least
//! version 1.[`OLDEST_MINOR`] is needed.

use std::fmt::Write as _;
use std::io::{Read as _, Seek as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once};

use crate::error::{Error, Kind, Result};

/// Oldest ONNX Runtime 1.x accepted (the `api-N` feature of crate ort).
pub const OLDEST_MINOR: u32 = ort::MINOR_VERSION;
/// The folder a package installs the library into.
pub const PACKAGE_FOLDER: &str = "/usr/lib/ssds";
/// The environment variable that names the library.
pub const VARIABLE: &str = "ORT_DYLIB_PATH";

/// The library in force.
#[derive(Clone)]
pub struct Library {
    /// The file.
    pub path: PathBuf,
    /// Its version, such as `1.31.1`.
    pub version: String,
    environment: ort::environment::Environment,
}

impl std::fmt::Debug for Library {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Library").field("path", &self.path).field("version", &self.version).finish_non_exhaustive()
    }
}

impl Library {
    /// ONNX Runtime's process-wide environment.
    pub(super) fn environment(&self) -> &ort::environment::Environment {
        &self.environment
    }

    /// Loads NVIDIA's libraries out of this library's folder, once a process: what is loaded is not looked for elsewhere. One that cannot be
    /// loaded is left to the dynamic loader, with a warning; the provider that needs it then says what it misses.
    pub(super) fn load_companions(&self) {
        static LOADED: Once = Once::new();
        LOADED.call_once(|| {
            for path in companions(self.path.parent().unwrap_or(Path::new("."))) {
                match ort::util::preload_dylib(&path) {
                    Ok(()) => log::debug!("{} is loaded", path.display()),
                    Err(error) => log::warn!("{} cannot be loaded: {}", path.display(), chain(&error)),
                }
            }
        });
    }
}

/// What the CUDA and the TensorRT provider are linked with, each after what it needs itself. The rest of cuDNN and TensorRT is found by
/// these, as they look into their own folder.
const COMPANIONS: [&str; 8] = [
    "libcudart.so",
    "libcublasLt.so",
    "libcublas.so",
    "libcurand.so",
    "libcufft.so",
    "libcudnn.so",
    "libnvinfer.so",
    "libnvonnxparser.so",
];

/// The files of [`COMPANIONS`] that are in `folder`, in that order.
fn companions(folder: &Path) -> impl Iterator<Item = PathBuf> {
    COMPANIONS.into_iter().map(|name| newest_in(folder, name)).filter(|path| path.exists())
}

/// What went wrong, in the library's words, without the positions in its source code and the names of its functions around them.
pub(super) fn reason(message: &str) -> &str {
    const STATUS: &str = "[ONNXRuntimeError] : ";
    const CUDA: &str = "CUDA failure ";
    let mut words = message.trim();
    if let Some((_, status)) = words.rsplit_once(STATUS) {
        // "1 : FAIL : " before the words
        words = status.splitn(3, " : ").last().unwrap_or(status);
    }
    if let Some(at) = words.find(CUDA) {
        words = words[at..].split(" ; GPU=").next().unwrap_or(words);
    }
    words.trim()
}

/// A place where the library may be.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place {
    /// How a person calls it.
    origin: String,
    path: PathBuf,
    /// Somebody asked for exactly this one.
    named: bool,
}

static LOADED: Mutex<Option<Library>> = Mutex::new(None);

/// Loads the library, or answers the one already loaded. `setting` is `inference.library`.
///
/// # Errors
/// [`Kind::Config`] when a named library does not fit or another one is already loaded; [`Kind::Unavailable`] when no customary place
/// holds a fitting one. The message lists every place and what was wrong there.
pub fn load(setting: Option<&Path>) -> Result<Library> {
    let mut loaded = LOADED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(library) = loaded.as_ref() {
        if let Some(setting) = setting {
            let wanted = library_file(setting);
            if canonical(&wanted) != canonical(&library.path) {
                return Err(Error::config(format!(
                    "inference.library is {}, but this process has loaded {} and ONNX Runtime cannot be exchanged; restart it",
                    wanted.display(),
                    library.path.display()
                )));
            }
        }
        return Ok(library.clone());
    }
    let variable = std::env::var_os(VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
    let beside = std::env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf));
    let library = search(&places(setting, variable.as_deref(), beside.as_deref()))?;
    log::info!("ONNX Runtime {} from {}", library.version, library.path.display());
    *loaded = Some(library.clone());
    Ok(library)
}

fn places(setting: Option<&Path>, variable: Option<&Path>, beside: Option<&Path>) -> Vec<Place> {
    if let Some(path) = setting {
        return vec![Place { origin: "inference.library".into(), path: library_file(path), named: true }];
    }
    if let Some(path) = variable {
        return vec![Place { origin: VARIABLE.into(), path: library_file(path), named: true }];
    }
    let triplet = format!("/usr/lib/{}-linux-gnu", std::env::consts::ARCH);
    let folders = beside
        .map(|b| ("beside the program", b.to_path_buf()))
        .into_iter()
        .chain([("package", PathBuf::from(PACKAGE_FOLDER))])
        .chain(["/usr/local/lib", triplet.as_str(), "/usr/lib64", "/usr/lib"].map(|d| ("system", PathBuf::from(d))));
    folders.map(|(origin, folder)| Place { origin: origin.into(), path: library_file_in(&folder), named: false }).collect()
}

/// A folder stands for the library in it.
fn library_file(path: &Path) -> PathBuf {
    if path.is_dir() { library_file_in(path) } else { path.to_path_buf() }
}

/// `libonnxruntime.so`, else the highest `libonnxruntime.so.*` of the folder.
fn library_file_in(folder: &Path) -> PathBuf {
    newest_in(folder, "libonnxruntime.so")
}

/// The file `library`, else the one with the highest version after it, such as `library.1.31.1`; `library` when there is none.
fn newest_in(folder: &Path, library: &str) -> PathBuf {
    let plain = folder.join(library);
    if plain.exists() {
        return plain;
    }
    let version = |name: &str| -> Option<Vec<u32>> {
        name.strip_prefix(library)?.strip_prefix('.')?.split('.').map(|part| part.parse().ok()).collect()
    };
    let found = std::fs::read_dir(folder).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name();
        Some((version(name.to_str()?)?, entry.path()))
    });
    found.max().map_or(plain, |(_, path)| path)
}

fn canonical(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_path_buf())
}

fn search(places: &[Place]) -> Result<Library> {
    let mut faults = Vec::new();
    for place in places {
        match try_load(&place.path) {
            Ok(library) => return Ok(library),
            Err(fault) => {
                if !place.named && place.path.exists() {
                    log::warn!("ONNX Runtime library {} ({}) passed over: {fault}", place.path.display(), place.origin);
                }
                faults.push((place, fault));
            }
        }
    }
    let mut message = String::from("no usable ONNX Runtime library; tried");
    for (place, fault) in &faults {
        let _ = write!(message, "\n  {} ({}): {fault}", place.path.display(), place.origin);
    }
    let _ = write!(
        message,
        "\nwanted libonnxruntime.so 1.{OLDEST_MINOR} or newer for {}: scripts/fetch-onnxruntime.sh brings one; set inference.library or {VARIABLE}",
        std::env::consts::ARCH
    );
    let kind = if places.iter().any(|p| p.named) { Kind::Config } else { Kind::Unavailable };
    Err(Error::new(kind, message))
}

fn try_load(path: &Path) -> Result<Library, String> {
    check_elf(path)?;
    let path = std::path::absolute(path).map_err(|e| e.to_string())?;
    let builder = ort::init_from(&path).map_err(|error| match error {
        ort::LoadDynamicError::Dlopen { error, .. } => format!("cannot be loaded: {}", chain(&error)),
        ort::LoadDynamicError::MissingApi { .. } => "is not ONNX Runtime (no OrtGetApiBase)".to_owned(),
        ort::LoadDynamicError::InvalidVersionString => "its version cannot be read".to_owned(),
        ort::LoadDynamicError::BadVersion { version_str, .. } => {
            format!("is version {version_str}, wanted 1.{OLDEST_MINOR} or newer")
        }
    })?;
    let environment = builder
        .with_name("ssds")
        .with_telemetry(false)
        .with_logger(std::sync::Arc::new(forward_log))
        .build()
        .map_err(|e| format!("cannot start: {e}"))?;
    let version = version(&path)?;
    Ok(Library { path, version, environment })
}

fn chain(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |source| source.to_string())
}

/// The version that the loaded library gives itself; ort's own wrapper tells only branch and commit.
fn version(path: &Path) -> Result<String, String> {
    use std::os::unix::ffi::OsStrExt as _;
    let name = std::ffi::CString::new(path.as_os_str().as_bytes()).map_err(|_| "its path holds a NUL byte".to_owned())?;
    // SAFETY: `name` is a C string. RTLD_NOLOAD only answers the handle of the library that `ort::init_from` loaded (or null) and runs no
    // constructor; the handle is never closed, as the library stays for the life of the process.
    let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD) };
    if handle.is_null() {
        return Err("was loaded but cannot be found again".to_owned());
    }
    // SAFETY: `handle` is a live library handle and the symbol's name is a C string.
    let symbol = unsafe { libc::dlsym(handle, c"OrtGetApiBase".as_ptr()) };
    if symbol.is_null() {
        return Err("is not ONNX Runtime (no OrtGetApiBase)".to_owned());
    }
    // SAFETY: ONNX Runtime's C API declares this symbol as a function without arguments that answers a pointer to a static OrtApiBase;
    // `ort::init_from` has called it in the same way and read the same version string.
    let text = unsafe {
        let base = std::mem::transmute::<*mut libc::c_void, extern "C" fn() -> *const ort::sys::OrtApiBase>(symbol)();
        if base.is_null() {
            return Err("gives no API".to_owned());
        }
        std::ffi::CStr::from_ptr(((*base).GetVersionString)())
    };
    Ok(text.to_string_lossy().into_owned())
}

/// ONNX Runtime's own messages go to this program's log under target `onnxruntime`.
fn forward_log(level: ort::logging::LogLevel, _category: &str, _id: &str, location: &str, message: &str) {
    use ort::logging::LogLevel;
    let level = match level {
        LogLevel::Fatal | LogLevel::Error => log::Level::Error,
        LogLevel::Warning => log::Level::Warn,
        LogLevel::Info => log::Level::Debug,
        LogLevel::Verbose => log::Level::Trace,
    };
    log::log!(target: "onnxruntime", level, "{message} ({location})");
}

/// Reads the ELF header and the segments' ends. The dynamic loader's own message for a foreign machine is "No such file or directory", and
/// a file that was cut short (a copy that was interrupted) would end this process with SIGBUS.
fn check_elf(path: &Path) -> Result<(), String> {
    const HEADER_BYTES: usize = 64;
    const SEGMENT_BYTES: usize = 56;
    const LOAD: u32 = 1;
    let mut file = std::fs::File::open(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => "not there".to_owned(),
        _ => format!("cannot be read: {e}"),
    })?;
    let length = file.metadata().map_err(|e| format!("cannot be read: {e}"))?.len();
    let mut header = [0_u8; HEADER_BYTES];
    file.read_exact(&mut header).map_err(|_| "is no shared library (shorter than an ELF header)".to_owned())?;
    if header[..4] != *b"\x7fELF" {
        return Err("is no shared library (no ELF header)".to_owned());
    }
    let short = |bytes: &[u8], at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
    let long = |bytes: &[u8], at: usize| bytes[at..at + 8].iter().rev().fold(0_u64, |v, &b| v << 8 | u64::from(b));
    // Class 2 = 64 bits, data 1 = little endian.
    let machine = match (header[4], header[5], short(&header, 18)) {
        (2, 1, 62) => "x86_64",
        (2, 1, 183) => "aarch64",
        (2, 1, 243) => "riscv64",
        (1, 1, 3) => "x86",
        (1, 1, 40) => "arm",
        _ => "another machine",
    };
    if machine != std::env::consts::ARCH {
        return Err(format!("is built for {machine}, wanted {}", std::env::consts::ARCH));
    }
    let (offset, size, count) = (long(&header, 32), usize::from(short(&header, 54)), usize::from(short(&header, 56)));
    let mut segments = vec![0_u8; size * count];
    let read = file.seek(std::io::SeekFrom::Start(offset)).and_then(|_| file.read_exact(&mut segments));
    if size != SEGMENT_BYTES || read.is_err() {
        return Err("is cut short or damaged (its program headers cannot be read)".to_owned());
    }
    let ends = segments
        .chunks_exact(SEGMENT_BYTES)
        .filter(|s| s[..4] == LOAD.to_le_bytes())
        .map(|s| long(s, 8).saturating_add(long(s, 32)));
    match ends.max() {
        Some(end) if end <= length => Ok(()),
        end => Err(format!("is cut short: it has {length} bytes, its header asks for {}", end.unwrap_or(1))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As ONNX Runtime 1.31.1 for CUDA 13 says it, on a machine without CUDA's libraries, without a driver, and with a driver but no GPU.
    #[test]
    fn reasons_are_freed_of_source_positions() {
        let position = "/onnxruntime_src/onnxruntime/core/session/provider_bridge_ort.cc:2043 onnxruntime::Provider& \
                        onnxruntime::ProviderLibrary::Get() [ONNXRuntimeError] : 1 : FAIL : ";
        let missing = "Failed to load library /opt/onnxruntime/libonnxruntime_providers_cuda.so with error: libcublasLt.so.13: cannot open \
                       shared object file: No such file or directory";
        assert_eq!(reason(&format!("{position}{missing}")), missing);
        let option = "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc:63 static \
                      onnxruntime::CUDAExecutionProviderInfo onnxruntime::CUDAExecutionProviderInfo::FromProviderOptions(const \
                      onnxruntime::ProviderOptions&) [ONNXRuntimeError] : 1 : FAIL : provider_options_utils.h:187 Parse Failed to parse \
                      provider option \"device_id\": CUDA failure 100: no CUDA-capable device is detected ; GPU=-1 ; hostname=station4 ; \
                      file=/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_execution_provider_info.cc ; line=70 ; \
                      expr=cudaGetDeviceCount(&num_devices);";
        assert_eq!(reason(option), "CUDA failure 100: no CUDA-capable device is detected");
        let call = "/onnxruntime_src/onnxruntime/core/providers/cuda/cuda_call.cc:154 std::conditional_t<THRW, void, \
                    onnxruntime::common::Status> onnxruntime::CudaCall(ERRTYPE, const char*) CUDA failure 2: out of memory ; GPU=0 ; \
                    hostname=station4 ; file=/onnxruntime_src/cuda_allocator.cc ; line=1 ; expr=cudaMalloc((void**)&p, size);";
        assert_eq!(reason(call), "CUDA failure 2: out of memory");
        let plain = " CUDA execution provider is not enabled in this build. ";
        assert_eq!(reason(plain), plain.trim());
        assert_eq!(reason("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Node (Conv_3) : failed"), "Node (Conv_3) : failed");
    }

    #[test]
    fn companions_are_taken_in_the_order_in_which_they_need_one_another() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(companions(folder.path()).count(), 0);
        for name in [
            "libcudnn.so.9",
            "libcudnn_ops.so.9",
            "libcublas.so.12",
            "libcublas.so.13",
            "libcudart.so.13",
            "libnvinfer.so",
            "libz.so.1",
        ] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let names: Vec<_> = companions(folder.path()).map(|p| p.file_name().unwrap().to_str().unwrap().to_owned()).collect();
        assert_eq!(names, ["libcudart.so.13", "libcublas.so.13", "libcudnn.so.9", "libnvinfer.so"]);
    }
}
