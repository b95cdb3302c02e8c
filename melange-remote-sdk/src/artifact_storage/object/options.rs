//! The options of the stores: keys and values become a client, and mistakes that no request is needed for are told.

use std::str::FromStr;
use std::sync::Arc;

use object_store::{ClientConfigKey, ObjectStore};

use crate::error::{Error, Result};

/// A bucket of Google Cloud Storage.
#[cfg(feature = "gcs")]
pub(super) fn gcs(place: &str, bucket: &str, options: &[(String, String)]) -> Result<Arc<dyn ObjectStore>> {
    use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey as Key};

    let mut builder = GoogleCloudStorageBuilder::new();
    for (key, value) in options {
        builder = builder.with_config(option(place, key)?, value);
    }
    let allow_http = builder.get_config_value(&Key::Client(ClientConfigKey::AllowHttp));
    check_endpoint(place, "google", builder.get_config_value(&Key::BaseUrl), allow_http)?;
    let store = builder.with_bucket_name(bucket).build();
    Ok(Arc::new(store.map_err(|error| misconfigured(place, error))?))
}

/// A bucket of Amazon S3, or of what speaks its language.
#[cfg(feature = "s3")]
pub(super) fn s3(place: &str, bucket: &str, options: &[(String, String)]) -> Result<Arc<dyn ObjectStore>> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, S3CopyIfNotExists};

    let mut builder = AmazonS3Builder::new();
    for (key, value) in options {
        builder = builder.with_config(option(place, key)?, value);
    }
    let allow_http = builder.get_config_value(&Key::Client(ClientConfigKey::AllowHttp));
    let endpoint = builder.get_config_value(&Key::S3Endpoint);
    let endpoint = endpoint.or_else(|| builder.get_config_value(&Key::Endpoint));
    check_endpoint(place, "aws", endpoint, allow_http)?;
    if builder.get_config_value(&Key::CopyIfNotExists).is_none() {
        // An upload whose completion is conditional: what Amazon's own storage understands.
        builder = builder.with_copy_if_not_exists(S3CopyIfNotExists::Multipart);
    }
    let store = builder.with_bucket_name(bucket).build();
    Ok(Arc::new(store.map_err(|error| misconfigured(place, error))?))
}

/// A container of Azure Blob Storage.
#[cfg(feature = "azure")]
pub(super) fn azure(
    place: &str,
    container: &str,
    options: &[(String, String)],
) -> Result<Arc<dyn ObjectStore>> {
    use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};

    let mut builder = MicrosoftAzureBuilder::new();
    for (key, value) in options {
        builder = builder.with_config(option(place, key)?, value);
    }
    let allow_http = builder.get_config_value(&Key::Client(ClientConfigKey::AllowHttp));
    // The emulator has an address of its own.
    if !is_true(builder.get_config_value(&Key::UseEmulator)) {
        check_endpoint(place, "azure", builder.get_config_value(&Key::Endpoint), allow_http)?;
    }
    let store = builder.with_container_name(container).build();
    Ok(Arc::new(store.map_err(|error| misconfigured(place, error))?))
}

fn option<K: FromStr<Err = object_store::Error>>(place: &str, key: &str) -> Result<K> {
    key.to_ascii_lowercase().parse().map_err(|error| misconfigured(place, error))
}

fn misconfigured(place: &str, error: object_store::Error) -> Error {
    Error::invalid(format!("the storage {place} is not configured well"))
        .hint("check its options and the variables that stand for them")
        .source(error)
}

/// Whether a value means yes, as the library reads it.
fn is_true(value: Option<String>) -> bool {
    let value = value.unwrap_or_default().to_ascii_lowercase();
    matches!(value.as_str(), "1" | "true" | "on" | "yes" | "y")
}

/// Refuses an endpoint that no request would ever reach.
fn check_endpoint(
    place: &str,
    store: &str,
    endpoint: Option<String>,
    allow_http: Option<String>,
) -> Result<()> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let refused = |why: &str| {
        Error::invalid(format!("the storage {place} is not configured well: the endpoint {endpoint} {why}"))
    };
    match endpoint.split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase()).as_deref() {
        Some("https") => Ok(()),
        Some("http") if is_true(allow_http) => Ok(()),
        Some("http") => Err(refused("is plain HTTP, which is not allowed")
            .hint(format!("allow it with the option {store}_allow_http=true, or use https://"))),
        Some(_) => Err(refused("is neither https:// nor http://")),
        None => Err(refused("has no scheme")
            .hint("an endpoint begins with https:// or http://, such as https://host:9000")),
    }
}
