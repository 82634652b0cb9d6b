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
    /// A client's certificate and key in one file, of the authority.
    #[allow(dead_code, reason = "the benchmarks have no clients with certificates")]
    pub client: PathBuf,
    /// A client's, of itself.
    #[allow(dead_code, reason = "as above")]
    pub stranger: PathBuf,
}

/// Makes an authority, a certificate for this machine, and clients.
pub fn make(dir: &Path) -> Certificates {
    let script = "
set -e
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=opmas-test-authority \
  -addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout server.key -out server.csr -subj /CN=localhost
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\\nbasicConstraints=CA:FALSE\\nextendedKeyUsage=serverAuth\\n' > ext
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile ext
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout client.key -out client.csr -subj /CN=router-1
printf 'basicConstraints=CA:FALSE\\nextendedKeyUsage=clientAuth\\n' > ext
openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out client.crt -days 2 -extfile ext
cat client.crt client.key > client.pem
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout stranger.key -out stranger.crt -days 2 -subj /CN=router-1
cat stranger.crt stranger.key > stranger.pem
";
    let made = Command::new("sh").arg("-c").arg(script).current_dir(dir).output().expect("sh");
    assert!(made.status.success(), "openssl: {}", String::from_utf8_lossy(&made.stderr));
    let file = |name| dir.join(name);
    Certificates {
        authority: file("ca.pem"),
        certificate: file("server.pem"),
        key: file("server.key"),
        client: file("client.pem"),
        stranger: file("stranger.pem"),
    }
}
