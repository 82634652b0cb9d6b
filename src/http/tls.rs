//! What clients need for TLS.

use std::io::Read as _;
use std::path::Path;
use std::sync::Once;

/// A file of certificates larger than this is a mistake.
const MAX_CA_FILE: u64 = 1 << 20;

/// Makes ring the provider of the process where `main` has not done so (tests, other programs that use the library).
pub fn install_provider() {
    static ONCE: Once = Once::new();
    // An error says that one is installed already, which is what is wanted.
    ONCE.call_once(|| drop(rustls::crypto::ring::default_provider().install_default()));
}

/// A PEM file with at least one certificate; else a sentence that says why not.
pub fn read_certificates(path: &Path) -> Result<Vec<u8>, String> {
    let mut pem = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(MAX_CA_FILE).read_to_end(&mut pem));
    read.map_err(|error| format!("cannot read the certificates {}: {error}", path.display()))?;
    let mark = b"-----BEGIN CERTIFICATE-----";
    if pem.windows(mark.len()).any(|window| window == mark) { Ok(pem) } else { Err(format!("{} holds no certificate in PEM", path.display())) }
}
