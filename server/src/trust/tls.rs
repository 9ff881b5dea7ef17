//! Certificates and keys for TLS, from PEM files, replaced while the server runs.

use parking_lot::RwLock;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use std::path::Path;
use std::sync::Arc;

/// What a server proves itself with, and whom it lets prove themselves.
#[derive(Debug)]
pub struct Tls {
    config: RwLock<Arc<ServerConfig>>,
}

/// The files of a server's TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles<P> {
    /// The certificate and those between it and its root, in PEM.
    pub certificate: P,
    /// Its key, in PEM.
    pub key: P,
    /// Certificates that sign those of clients; absent: clients are not asked for one.
    pub client_ca: Option<P>,
}

/// Files that cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// A file cannot be read, or holds something else.
    #[error("{setting}: found {path}, which cannot be used ({reason}); expected {expected}")]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// The file.
        path: String,
        /// What is wrong.
        reason: String,
        /// What would be right.
        expected: &'static str,
    },
    /// Certificate and key are sound and do not belong together, or cannot be used.
    #[error(
        "tls-cert, tls-key: found a pair that cannot be used ({0}); expected a certificate and its own key"
    )]
    Pair(rustls::Error),
    /// The certificates that sign those of clients cannot be used.
    #[error(
        "tls-client-ca: found certificates that cannot be used ({0}); expected those of authorities"
    )]
    ClientCa(String),
}

impl Tls {
    /// TLS with these files.
    ///
    /// # Errors
    /// One of them cannot be used, or certificate and key do not belong together.
    pub fn load<P: AsRef<Path>>(files: &TlsFiles<P>) -> Result<Self, TlsError> {
        let config = server_config(files)?;
        Ok(Self {
            config: RwLock::new(Arc::new(config)),
        })
    }

    /// Uses what `other` has for connections that begin from now on.
    pub fn replace(&self, other: &Self) {
        *self.config.write() = other.current();
    }

    /// What a connection that begins now is served with.
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.config.read())
    }
}

fn server_config<P: AsRef<Path>>(files: &TlsFiles<P>) -> Result<ServerConfig, TlsError> {
    let chain = certificates("tls-cert", files.certificate.as_ref())?;
    let path = files.key.as_ref();
    let key = PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::File {
        setting: "tls-key",
        path: path.display().to_string(),
        reason: error.to_string(),
        expected: "a private key in PEM",
    })?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let roots = roots("tls-client-ca", path.as_ref())?;
            // A client without a certificate may still have a token.
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .allow_unauthenticated()
                .build()
                .map_err(|error| TlsError::ClientCa(error.to_string()))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut config = builder
        .with_single_cert(chain, key)
        .map_err(TlsError::Pair)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

/// What a client trusts and proves itself with: the authorities of a file, and perhaps a certificate of its own.
///
/// # Errors
/// A file cannot be used.
pub fn client_config(ca: &Path) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Pair)?;
    Ok(builder
        .with_root_certificates(roots("tls-ca", ca)?)
        .with_no_client_auth())
}

fn roots(setting: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(setting, path)? {
        roots.add(certificate).map_err(|error| TlsError::File {
            setting,
            path: path.display().to_string(),
            reason: error.to_string(),
            expected: "certificates of authorities in PEM",
        })?;
    }
    Ok(roots)
}

fn certificates(
    setting: &'static str,
    path: &Path,
) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |reason: String| TlsError::File {
        setting,
        path: path.display().to_string(),
        reason,
        expected: "one or more certificates in PEM",
    };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| wrong(error.to_string()))?;
    if found.is_empty() {
        return Err(wrong("it holds none".to_owned()));
    }
    Ok(found)
}
