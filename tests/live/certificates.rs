//! An authority of the tests' own, made with openssl.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Files in PEM.
pub struct Certificates {
    /// The authority, which clients are told to believe.
    pub authority: PathBuf,
    /// The server's certificate for 127.0.0.1 and localhost.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// Makes an authority and a certificate for this machine.
pub fn make(dir: &Path) -> Certificates {
    let script = "
set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=opmas-test-authority \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=localhost
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\nextendedKeyUsage=serverAuth\\n' > ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile ext
";
    let made = Command::new("sh").arg("-c").arg(script).current_dir(dir).output().expect("sh");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    Certificates { authority: dir.join("ca.pem"), certificate: dir.join("server.pem"), key: dir.join("server.key") }
}
