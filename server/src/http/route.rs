//! Method and raw path to endpoint: the only list of paths. `openapi.json` is compared with it by a test.

use super::traffic::Surface;
use crate::trust::Role;
use http::Method;

/// Everything that can be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Endpoint {
    KvKey,
    KvKeys,
    ClusterRoute,
    Actuator,
    V1Key,
    V1Keys,
    V1Batch,
    Watch,
    Stats,
    Metrics,
    Ui,
    Snapshot,
    Snapshots,
    HotKeys,
    BigKeys,
    Wal,
    Promote,
    Demote,
    Config,
    Backup,
    Evict,
    Restore,
    Verify,
    Persistence,
    Live,
    Ready,
    Startup,
    OpenApi,
}

/// The path prefixes behind which a key follows.
const V1_KEY: &str = "/v1/kv/";
const KV_KEY: &str = "/kv/";
const CLUSTER_ROUTE: &str = "/api/cluster/route/";

impl Endpoint {
    pub(crate) const ALL: &[Self] = &[
        Self::KvKey,
        Self::KvKeys,
        Self::ClusterRoute,
        Self::Actuator,
        Self::V1Key,
        Self::V1Keys,
        Self::V1Batch,
        Self::Watch,
        Self::Stats,
        Self::Metrics,
        Self::Ui,
        Self::Snapshot,
        Self::Snapshots,
        Self::HotKeys,
        Self::BigKeys,
        Self::Wal,
        Self::Promote,
        Self::Demote,
        Self::Config,
        Self::Backup,
        Self::Evict,
        Self::Restore,
        Self::Verify,
        Self::Persistence,
        Self::Live,
        Self::Ready,
        Self::Startup,
        Self::OpenApi,
    ];

    /// The endpoint at a raw path, and where in the path its key begins (the path's end when it has none).
    pub(crate) fn find(path: &str) -> Option<(Self, usize)> {
        // The hot ones first.
        for (prefix, endpoint) in [
            (V1_KEY, Self::V1Key),
            (KV_KEY, Self::KvKey),
            (CLUSTER_ROUTE, Self::ClusterRoute),
        ] {
            if path.starts_with(prefix) {
                return Some((endpoint, prefix.len()));
            }
        }
        let endpoint = match path {
            "/kv" => Self::KvKeys,
            "/v1/keys" => Self::V1Keys,
            "/v1/batch" => Self::V1Batch,
            "/v1/watch" => Self::Watch,
            "/v1/admin/stats" => Self::Stats,
            "/v1/admin/snapshot" => Self::Snapshot,
            "/v1/admin/snapshots" => Self::Snapshots,
            "/v1/admin/hotkeys" => Self::HotKeys,
            "/v1/admin/bigkeys" => Self::BigKeys,
            "/v1/admin/wal" => Self::Wal,
            "/v1/admin/promote" => Self::Promote,
            "/v1/admin/demote" => Self::Demote,
            "/v1/admin/config" => Self::Config,
            "/v1/admin/backup" => Self::Backup,
            "/v1/admin/evict" => Self::Evict,
            "/v1/admin/restore" => Self::Restore,
            "/v1/admin/verify" => Self::Verify,
            "/v1/admin/persistence" => Self::Persistence,
            "/health/live" => Self::Live,
            "/health/ready" => Self::Ready,
            "/health/startup" => Self::Startup,
            "/actuator/health" => Self::Actuator,
            "/metrics" => Self::Metrics,
            "/ui" if cfg!(feature = "ui") => Self::Ui,
            "/openapi.json" => Self::OpenApi,
            _ => return None,
        };
        Some((endpoint, path.len()))
    }

    /// The path as OpenAPI writes it, which is also what a metric's `route` says.
    pub(crate) fn template(self) -> &'static str {
        match self {
            Self::KvKey => "/kv/{key}",
            Self::KvKeys => "/kv",
            Self::ClusterRoute => "/api/cluster/route/{key}",
            Self::Actuator => "/actuator/health",
            Self::V1Key => "/v1/kv/{key}",
            Self::V1Keys => "/v1/keys",
            Self::V1Batch => "/v1/batch",
            Self::Watch => "/v1/watch",
            Self::Stats => "/v1/admin/stats",
            Self::Metrics => "/metrics",
            Self::Ui => "/ui",
            Self::Snapshot => "/v1/admin/snapshot",
            Self::Snapshots => "/v1/admin/snapshots",
            Self::HotKeys => "/v1/admin/hotkeys",
            Self::BigKeys => "/v1/admin/bigkeys",
            Self::Wal => "/v1/admin/wal",
            Self::Promote => "/v1/admin/promote",
            Self::Demote => "/v1/admin/demote",
            Self::Config => "/v1/admin/config",
            Self::Backup => "/v1/admin/backup",
            Self::Evict => "/v1/admin/evict",
            Self::Restore => "/v1/admin/restore",
            Self::Verify => "/v1/admin/verify",
            Self::Persistence => "/v1/admin/persistence",
            Self::Live => "/health/live",
            Self::Ready => "/health/ready",
            Self::Startup => "/health/startup",
            Self::OpenApi => "/openapi.json",
        }
    }

    /// The methods it knows, as the `Allow` field lists them.
    pub(crate) fn allow(self) -> &'static str {
        match self {
            Self::KvKey | Self::V1Key => "GET, HEAD, PUT, PATCH, DELETE",
            Self::V1Batch
            | Self::Snapshot
            | Self::Promote
            | Self::Demote
            | Self::Evict
            | Self::Restore
            | Self::Verify
            | Self::Persistence => "POST",
            Self::Config => "GET, HEAD, PATCH",
            // Not HEAD: these are made while they are sent.
            Self::Backup | Self::Wal | Self::Watch => "GET",
            _ => "GET, HEAD",
        }
    }

    pub(crate) fn allows(self, method: &Method) -> bool {
        self.allow()
            .split(", ")
            .any(|allowed| allowed == method.as_str())
    }

    /// Whether it is answered however busy the server is: what operators need to find out why.
    pub(crate) fn comes_first(self) -> bool {
        self.surface() == Surface::Other || self.template().starts_with("/v1/admin/")
    }

    /// Whether there is no answer before what is on disk has been loaded.
    pub(crate) fn needs_the_store(self) -> bool {
        self.surface() != Surface::Other && self != Self::ClusterRoute
    }

    /// Whether its path ends with a key.
    pub(crate) fn has_key(self) -> bool {
        matches!(self, Self::KvKey | Self::V1Key | Self::ClusterRoute)
    }

    /// The role that a request takes; `None`: nobody has to say who they are. What is not listed is administration,
    /// so that a new endpoint is closed until somebody opens it.
    pub(crate) fn needs(self, method: &Method) -> Option<Role> {
        match self {
            // The page shows nothing by itself: it asks with the token it is given.
            Self::Actuator
            | Self::Live
            | Self::Ready
            | Self::Startup
            | Self::OpenApi
            | Self::Ui => None,
            Self::KvKey | Self::V1Key => {
                let reads = method == Method::GET || method == Method::HEAD;
                Some(if reads { Role::Read } else { Role::Write })
            }
            // A batch that writes takes more, which is known once it has been read.
            // Figures name no key.
            Self::KvKeys
            | Self::ClusterRoute
            | Self::V1Keys
            | Self::V1Batch
            | Self::Watch
            | Self::Metrics => Some(Role::Read),
            _ => Some(Role::Admin),
        }
    }

    /// Whether requests are written to the audit log: administration, but for reading figures over and over.
    pub(crate) fn is_audited(self, method: &Method) -> bool {
        !matches!(self, Self::Stats | Self::HotKeys) && self.needs(method) == Some(Role::Admin)
    }

    pub(crate) fn surface(self) -> Surface {
        match self {
            Self::KvKey | Self::KvKeys | Self::ClusterRoute => Surface::Kv,
            Self::V1Key
            | Self::V1Keys
            | Self::V1Batch
            | Self::Watch
            | Self::Stats
            | Self::Snapshot
            | Self::Snapshots
            | Self::HotKeys
            | Self::BigKeys
            | Self::Wal
            | Self::Promote
            | Self::Demote
            | Self::Config
            | Self::Backup
            | Self::Evict
            | Self::Restore
            | Self::Verify
            | Self::Persistence => Surface::V1,
            Self::Actuator
            | Self::Live
            | Self::Ready
            | Self::Startup
            | Self::Metrics
            | Self::Ui
            | Self::OpenApi => Surface::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_template_leads_to_its_endpoint() {
        for endpoint in Endpoint::ALL.iter().copied() {
            let path = endpoint.template().replace("{key}", "some/key");
            let (found, start) = Endpoint::find(&path).expect("a known path");
            assert_eq!(found, endpoint);
            assert!(
                path[start..].is_empty() || &path[start..] == "some/key",
                "{path}"
            );
        }
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for path in [
            "",
            "*",
            "/",
            "/v1",
            "/v1/kv",
            "/v1/keys/",
            "/KV/a",
            "/kvs",
            "/v2/kv/a",
            "/health",
            "//kv/a",
        ] {
            assert_eq!(Endpoint::find(path), None, "{path}");
        }
        // An empty key is a mistake in the key, not an unknown path.
        assert_eq!(Endpoint::find("/kv/"), Some((Endpoint::KvKey, 4)));
    }

    /// The document and the routes name the same operations.
    #[test]
    fn the_openapi_document_has_exactly_these_routes() {
        let document: serde_json::Value =
            serde_json::from_str(super::super::health::OPENAPI).expect("valid JSON");
        assert_eq!(document["openapi"], "3.1.0");
        let mut written = BTreeSet::new();
        for (path, item) in document["paths"].as_object().expect("paths") {
            for (method, operation) in item.as_object().expect("a path item") {
                if method == "parameters" {
                    continue;
                }
                assert!(
                    operation["responses"]
                        .as_object()
                        .is_some_and(|all| !all.is_empty()),
                    "{method} {path}"
                );
                assert!(operation["operationId"].is_string(), "{method} {path}");
                written.insert(format!("{} {path}", method.to_uppercase()));
            }
        }
        let routed: BTreeSet<String> = Endpoint::ALL
            .iter()
            .flat_map(|endpoint| {
                endpoint
                    .allow()
                    .split(", ")
                    .map(move |method| format!("{method} {}", endpoint.template()))
            })
            // HEAD is GET without its content, and is only spelt out where the contract does.
            .filter(|operation| {
                !operation.starts_with("HEAD ") || operation.ends_with(" /v1/kv/{key}")
            })
            .collect();
        assert_eq!(written, routed);
    }

    /// Every reference in the document leads somewhere.
    #[test]
    fn the_openapi_document_has_no_dangling_reference() {
        fn walk(value: &serde_json::Value, root: &serde_json::Value) {
            match value {
                serde_json::Value::Object(members) => {
                    if let Some(serde_json::Value::String(reference)) = members.get("$ref") {
                        let pointer = reference.strip_prefix('#').expect("a local reference");
                        assert!(root.pointer(pointer).is_some(), "{reference}");
                    }
                    members.values().for_each(|value| walk(value, root));
                }
                serde_json::Value::Array(items) => items.iter().for_each(|value| walk(value, root)),
                _ => {}
            }
        }
        let document: serde_json::Value =
            serde_json::from_str(super::super::health::OPENAPI).expect("valid JSON");
        walk(&document, &document);
    }
}
