//! TLS of a source that listens: TLS 1.2 and 1.3, certificates of clients checked where an authority is named (RFC 5425).

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

use super::ServerTls;

/// Reads the files.
///
/// # Errors
/// One sentence with the file that cannot be used, and why.
pub(super) fn config(files: &ServerTls) -> Result<Arc<ServerConfig>, String> {
    let chain = certificates(&files.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&files.key_file).map_err(|error| unusable(&files.key_file, "key", &error))?;
    let provider = Arc::new(ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().map_err(|error| error.to_string())?;
    let config = match &files.ca_file {
        None => config.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for authority in certificates(file)? {
                roots.add(authority).map_err(|error| format!("{}: {error}", file.display()))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            config.with_client_cert_verifier(verifier.map_err(|error| format!("{}: {error}", file.display()))?)
        }
    };
    let config = config.with_single_cert(chain, key);
    let config = config.map_err(|error| format!("{} and {} do not fit together: {error}", files.cert_file.display(), files.key_file.display()))?;
    Ok(Arc::new(config))
}

/// All certificates of a file, at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read.map_err(|error| unusable(file, "certificates", &error))? {
        none if none.is_empty() => Err(format!("{} holds no certificate in PEM", file.display())),
        some => Ok(some),
    }
}

/// Without what the file holds.
fn unusable(file: &Path, what: &str, error: &PemError) -> String {
    match error {
        PemError::Io(error) => format!("cannot read the {what} {}: {error}", file.display()),
        PemError::NoItemsFound => format!("{} holds no {what} in PEM", file.display()),
        _ => format!("{} is no PEM file with the {what}", file.display()),
    }
}
