//! The identity from PEM files, read again when they change. Certificate, key and bundles count together: files
//! that do not fit each other leave the last good identity in force.

use std::{
    collections::BTreeSet,
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    sync::Arc,
};

use identity::{BundleSet, Credentials, SpiffeId, TrustBundle, X509Svid, crypto};
use tokio::sync::mpsc;

use super::{SourceError, Update};
use crate::{
    config::PemFiles,
    watching::{Watching, directory_of},
};

pub(super) async fn watch(files: &PemFiles, wanted: Option<&SpiffeId>, updates: &mpsc::Sender<Update>) {
    let directories: BTreeSet<PathBuf> = paths(files).map(|path| directory_of(path)).collect();
    let watching = Watching::directories(&directories);
    let mut last = None;
    let mut held: Option<Arc<Credentials>> = None;
    loop {
        let mut state = digest(files);
        while last.is_some() && last != Some(state) {
            watching.settle().await;
            let again = digest(files);
            if again == state {
                break;
            }
            state = again;
        }
        if last != Some(state) {
            let update = match renew(files, wanted, held.as_deref()) {
                Ok(credentials) => {
                    let credentials = Arc::new(credentials);
                    held = Some(Arc::clone(&credentials));
                    Update::Credentials(credentials)
                }
                Err(error) => Update::Failed(error),
            };
            if updates.send(update).await.is_err() {
                return;
            }
            last = Some(state);
        }
        tokio::select! {
            () = watching.wait() => {}
            () = updates.closed() => return,
        }
    }
}

/// Reads the files once.
pub(crate) fn load(files: &PemFiles, wanted: Option<&SpiffeId>) -> Result<Credentials, SourceError> {
    renew(files, wanted, None)
}

fn renew(
    files: &PemFiles,
    wanted: Option<&SpiffeId>,
    held: Option<&Credentials>,
) -> Result<Credentials, SourceError> {
    let svid = X509Svid::from_pem(&read(&files.certificate)?, &read(&files.key)?).map_err(|source| {
        let source = Box::new(source);
        SourceError::Svid { certificate: files.certificate.clone(), key: files.key.clone(), source }
    })?;
    if let Some(wanted) = wanted.filter(|wanted| *wanted != svid.id()) {
        return Err(SourceError::OtherIdentity { found: svid.id().clone(), wanted: wanted.clone() });
    }
    let own = (svid.id().trust_domain(), files.bundle.clone());
    let bundles = std::iter::once(&own)
        .chain(&files.federated)
        .map(|(trust_domain, path)| {
            TrustBundle::from_pem(trust_domain.clone(), &read(path)?)
                .map_err(|source| SourceError::Bundle { path: path.clone(), source })
        })
        .collect::<Result<BundleSet, _>>()?;
    let svid = Arc::new(svid);
    let credentials = match held {
        Some(held) => held.renew(svid, bundles),
        None => Credentials::new(svid, bundles),
    };
    Ok(credentials?)
}

fn paths(files: &PemFiles) -> impl Iterator<Item = &PathBuf> {
    [&files.certificate, &files.key, &files.bundle]
        .into_iter()
        .chain(files.federated.iter().map(|(_, path)| path))
}

/// Stands for the content of all files; a file that cannot be read stands for itself.
fn digest(files: &PemFiles) -> [u8; 32] {
    let mut digest = crypto::Sha256::new();
    for path in paths(files) {
        let text = read(path);
        let text = text.as_ref().map_or("", |text| text.as_str());
        digest.update(&text.len().to_be_bytes());
        digest.update(text.as_bytes());
    }
    digest.finish()
}

fn read(path: &Path) -> Result<zeroize::Zeroizing<String>, SourceError> {
    let mut text = zeroize::Zeroizing::new(String::new());
    File::open(path)
        .and_then(|file| file.take(MAX_FILE).read_to_string(&mut text))
        .map_err(|source| SourceError::Read { path: path.to_owned(), source })?;
    Ok(text)
}

/// A bundle of hundreds of certificates; more is cut and so refused.
const MAX_FILE: u64 = 1024 * 1024;
