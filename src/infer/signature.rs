//! Optional signatures of model files: Ed25519 (RFC 8032) over the file's bytes, in `MODEL.sig` beside it (64 bytes).
//!
//! `openssl pkeyutl -sign -rawin -inkey key.pem -in ssds.onnx -out ssds.onnx.sig` makes one. `inference.trusted_keys` lists public keys: 64
//! hexadecimal digits, or the path of a PEM file (`openssl pkey -in key.pem -pubout`). With keys listed an unsigned model, or one signed by
//! another key, is refused; without keys nothing is checked.

use std::path::{Path, PathBuf};

use ring::signature::{ED25519, UnparsedPublicKey};

use crate::error::{Error, Result};

/// Length of a public key, bytes.
const KEY_BYTES: usize = 32;
/// Length of a signature, bytes.
const SIGNATURE_BYTES: usize = 64;
/// DER of a SubjectPublicKeyInfo with algorithm id-Ed25519 up to the key itself (RFC 8410, section 4).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// A public key and how the settings call it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrustedKey {
    /// The settings' text.
    pub name: String,
    key: [u8; KEY_BYTES],
}

impl TrustedKey {
    /// Reads a key from hexadecimal digits or a PEM file.
    ///
    /// # Errors
    /// [`crate::Kind::Config`] naming the key and what was wanted.
    pub fn parse(text: &str) -> Result<Self> {
        let fault = |what: String| {
            Error::config(format!("inference.trusted_keys holds `{text}`, {what}; wanted 64 hexadecimal digits or a PEM file"))
        };
        let key = match unhex(text) {
            Some(bytes) => bytes.try_into().map_err(|b: Vec<u8>| fault(format!("which has {} bytes", b.len())))?,
            None => {
                let pem = std::fs::read_to_string(text).map_err(|e| fault(format!("which cannot be read ({e})")))?;
                from_pem(&pem).ok_or_else(|| fault("which is no PEM file of an Ed25519 public key".into()))?
            }
        };
        Ok(Self { name: text.to_owned(), key })
    }
}

/// Whether a key of the settings is the key itself and not a file's path.
#[must_use]
pub fn is_inline_key(text: &str) -> bool {
    unhex(text).is_some()
}

/// The file that holds a model's signature.
#[must_use]
pub fn signature_path(model: &Path) -> PathBuf {
    let mut name = model.file_name().unwrap_or_default().to_os_string();
    name.push(".sig");
    model.with_file_name(name)
}

/// Checks `bytes` against the signature beside `model`; answers the key that signed, `None` when no keys are trusted.
///
/// # Errors
/// [`crate::Kind::Config`] for a bad key, [`crate::Kind::Data`] when the signature is missing, malformed or by none of the keys.
pub fn check(model: &Path, bytes: &[u8], keys: &[String]) -> Result<Option<String>> {
    if keys.is_empty() {
        return Ok(None);
    }
    let keys = keys.iter().map(|key| TrustedKey::parse(key)).collect::<Result<Vec<_>>>()?;
    let path = signature_path(model);
    let signature = std::fs::read(&path).map_err(|e| {
        Error::data(format!("inference.trusted_keys asks for a signature, but {} cannot be read: {e}", path.display()))
    })?;
    if signature.len() != SIGNATURE_BYTES {
        return Err(Error::data(format!(
            "signature {} has {} bytes, wanted {SIGNATURE_BYTES} (Ed25519)",
            path.display(),
            signature.len()
        )));
    }
    let signed = keys.iter().find(|key| UnparsedPublicKey::new(&ED25519, key.key).verify(bytes, &signature).is_ok());
    let signed = signed.ok_or_else(|| {
        Error::data(format!("signature {} was made by none of the {} keys of inference.trusted_keys", path.display(), keys.len()))
    })?;
    Ok(Some(signed.name.clone()))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| {
        let pair = std::str::from_utf8(pair).ok().filter(|p| p.len() == 2 && p.bytes().all(|b| b.is_ascii_hexdigit()))?;
        u8::from_str_radix(pair, 16).ok()
    });
    pairs.collect()
}

fn from_pem(pem: &str) -> Option<[u8; KEY_BYTES]> {
    let body = pem.split_once("-----BEGIN PUBLIC KEY-----")?.1.split_once("-----END PUBLIC KEY-----")?.0;
    let der = unbase64(body)?;
    der.strip_prefix(&SPKI_PREFIX)?.try_into().ok()
}

/// Base 64 (RFC 4648, section 4); white space is skipped.
fn unbase64(text: &str) -> Option<Vec<u8>> {
    let (mut out, mut bits, mut held) = (Vec::new(), 0_u32, 0_u32);
    for byte in text.bytes().filter(|b| !b.is_ascii_whitespace() && *b != b'=') {
        let value = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            out.push((bits >> held) as u8);
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made with OpenSSL 3: genpkey -algorithm ed25519; pkey -pubout; pkeyutl -sign -rawin over the bytes `signed text`.
    const PEM: &str =
        "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAxuTYP5HV2vFF0fCRNtRVehWYKkf/lspSVOe6/BofPIo=\n-----END PUBLIC KEY-----\n";
    const KEY: &str = "c6e4d83f91d5daf145d1f09136d4557a15982a47ff96ca5254e7bafc1a1f3c8a";
    const SIGNATURE: &str = "2d9e2dad70ddd398435072bb80d9dae1cac06e6664231b05566da068f7450bcf\
                             8fe22a681b1fe8fb45991a38520fb0d1412b5e67b68ab7db5ed4608873272105";

    struct Folder(tempfile::TempDir);

    impl Folder {
        fn new(signature: &[u8]) -> Self {
            let folder = tempfile::tempdir().unwrap();
            std::fs::write(folder.path().join("m.onnx.sig"), signature).unwrap();
            std::fs::write(folder.path().join("key.pem"), PEM).unwrap();
            Self(folder)
        }

        fn check(&self, bytes: &[u8], keys: &[&str]) -> Result<Option<String>, String> {
            let keys: Vec<String> = keys.iter().map(|k| k.replace("DIR", &self.0.path().display().to_string())).collect();
            let strip = |text: String| text.replace(&self.0.path().display().to_string(), "DIR");
            check(&self.0.path().join("m.onnx"), bytes, &keys).map(|k| k.map(strip)).map_err(|e| strip(e.to_string()))
        }
    }

    #[test]
    fn signatures_of_openssl_are_accepted_by_either_form_of_the_key() {
        let folder = Folder::new(&unhex(SIGNATURE).unwrap());
        let other = "00".repeat(32);
        assert_eq!(folder.check(b"signed text", &[&other, KEY]).unwrap().unwrap(), KEY);
        assert_eq!(folder.check(b"signed text", &["DIR/key.pem"]).unwrap().unwrap(), "DIR/key.pem");
        assert_eq!(folder.check(b"anything", &[]).unwrap(), None);
    }

    #[test]
    fn everything_else_is_refused() {
        let folder = Folder::new(&unhex(SIGNATURE).unwrap());
        let by_none = "signature DIR/m.onnx.sig was made by none of the 1 keys of inference.trusted_keys";
        assert_eq!(folder.check(b"signed texT", &[KEY]).unwrap_err(), by_none);
        assert_eq!(folder.check(b"signed text", &[&"11".repeat(32)]).unwrap_err(), by_none);
        let short = Folder::new(b"abc").check(b"signed text", &[KEY]).unwrap_err();
        assert_eq!(short, "signature DIR/m.onnx.sig has 3 bytes, wanted 64 (Ed25519)");
        std::fs::remove_file(folder.0.path().join("m.onnx.sig")).unwrap();
        let missing = folder.check(b"signed text", &[KEY]).unwrap_err();
        assert_eq!(
            missing,
            "inference.trusted_keys asks for a signature, but DIR/m.onnx.sig cannot be read: No such file or directory (os error 2)"
        );
        for (key, wanted) in [
            ("abcd", "inference.trusted_keys holds `abcd`, which has 2 bytes; wanted 64 hexadecimal digits or a PEM file"),
            (
                "DIR/none.pem",
                "inference.trusted_keys holds `DIR/none.pem`, which cannot be read (No such file or directory (os error 2)); wanted 64 \
                 hexadecimal digits or a PEM file",
            ),
        ] {
            assert_eq!(folder.check(b"x", &[key]).unwrap_err(), wanted);
        }
        std::fs::write(folder.0.path().join("key.pem"), PEM.replace("MCow", "MCoz")).unwrap();
        let error = folder.check(b"x", &["DIR/key.pem"]).unwrap_err();
        assert!(error.contains("which is no PEM file of an Ed25519 public key"), "{error}");
    }
}
