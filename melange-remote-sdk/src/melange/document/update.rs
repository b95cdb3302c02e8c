//! The `update` section: where a bot looks for new versions. Builds carry it along.

use serde::Serialize;

use super::decode::Decoder;
use super::{Text, is_false};
use crate::text::yaml::Node;

/// How new versions are found.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Update {
    /// Whether a bot may update the definition.
    #[serde(skip_serializing_if = "is_false")]
    pub enabled: bool,
    /// Whether people update it.
    pub manual: bool,
    /// Whether versions must not be passed over.
    pub require_sequential: bool,
    /// Whether several definitions share one upstream.
    #[serde(skip_serializing_if = "is_false")]
    pub shared: bool,
    /// Whether prereleases count.
    #[serde(skip_serializing_if = "is_false")]
    pub enable_prerelease_tags: bool,
    /// What stands between the parts of an upstream version.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub version_separator: Text,
    /// Why updates are off.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub exclude_reason: Text,
    /// Versions to pass over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore_regex_patterns: Vec<Text>,
    /// release-monitoring.org.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub release_monitor: Option<ReleaseMonitor>,
    /// GitHub's releases or tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub github: Option<GithubMonitor>,
    /// Tags of any git repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub git: Option<GitMonitor>,
    /// Tags of a registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub oci: Option<OciMonitor>,
    /// Streams of versions from several sources.
    #[serde(rename = "version_data", skip_serializing_if = "Option::is_none")]
    pub version_data: Option<VersionData>,
    /// Changes from upstream's version to the package's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub version_transform: Vec<VersionTransform>,
    /// When to look, where upstream has no versions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
}

/// release-monitoring.org.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct ReleaseMonitor {
    /// The project's number there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identifier: Option<u64>,
    /// Text taken off the front.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub strip_prefix: Text,
    /// Text taken off the end.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub strip_suffix: Text,
    /// Text that a version must hold.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub version_filter_contains: Text,
    /// Text that a version must begin with.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub version_filter_prefix: Text,
}

/// GitHub's releases or tags.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct GithubMonitor {
    /// `owner/name`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub identifier: Text,
    /// Text taken off the front.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub strip_prefix: Text,
    /// Text taken off the end.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub strip_suffix: Text,
    /// Text that a tag must begin with; the older name of `tag-filter-prefix`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub tag_filter: Text,
    /// Text that a tag must begin with.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub tag_filter_prefix: Text,
    /// Text that a tag must hold.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub tag_filter_contains: Text,
    /// Whether tags count instead of releases.
    #[serde(skip_serializing_if = "is_false")]
    pub use_tag: bool,
}

/// Tags of any git repository.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct GitMonitor {
    /// Text taken off the front.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub strip_prefix: Text,
    /// Text taken off the end.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub strip_suffix: Text,
    /// Text that a tag must begin with.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub tag_filter_prefix: Text,
    /// Text that a tag must hold.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub tag_filter_contains: Text,
}

/// Tags of a registry.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct OciMonitor {
    /// The repository.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub identifier: Text,
    /// Text taken off the front.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub strip_prefix: Text,
    /// Text taken off the end.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub strip_suffix: Text,
    /// Text that a tag must begin with.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub tag_filter_prefix: Text,
    /// Text that a tag must hold.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub tag_filter_contains: Text,
}

/// Streams of versions.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct VersionData {
    /// How a version is written.
    #[serde(rename = "version_format", skip_serializing_if = "str::is_empty")]
    pub version_format: Text,
    /// Where its parts come from.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<VersionSource>,
}

/// One stream.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct VersionSource {
    /// Its name.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub name: Text,
    /// The stream.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub stream: Text,
    /// Versions to pass over.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ignore: Vec<Text>,
    /// Where the commit comes from.
    #[serde(rename = "commit_source", skip_serializing_if = "str::is_empty")]
    pub commit_source: Text,
    /// Whether releases count.
    #[serde(rename = "use_release", skip_serializing_if = "is_false")]
    pub use_release: bool,
}

/// One change of a version.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct VersionTransform {
    /// An expression.
    #[serde(rename = "match", skip_serializing_if = "str::is_empty")]
    pub pattern: Text,
    /// What replaces it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub replace: Text,
}

/// When to look.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Schedule {
    /// Why.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub reason: Text,
    /// `daily`, `weekly` or `monthly`.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub period: Text,
}

impl Decoder<'_> {
    pub(super) fn update(&mut self, node: &Node) -> Update {
        let mut fields = self.fields(node, "`update`");
        let update = Update {
            enabled: self.boolean(fields.get("enabled")),
            manual: self.boolean(fields.get("manual")),
            require_sequential: self.boolean(fields.get("require-sequential")),
            shared: self.boolean(fields.get("shared")),
            enable_prerelease_tags: self.boolean(fields.get("enable-prerelease-tags")),
            version_separator: self.text(fields.get("version-separator")),
            exclude_reason: self.text(fields.get("exclude-reason")),
            ignore_regex_patterns: self.texts(fields.get("ignore-regex-patterns")),
            release_monitor: fields.get("release-monitor").map(|node| self.release_monitor(node)),
            github: fields.get("github").map(|node| self.github_monitor(node)),
            git: fields.get("git").map(|node| self.git_monitor(node)),
            oci: fields.get("oci").map(|node| self.oci_monitor(node)),
            version_data: fields.get("version_data").map(|node| self.version_data(node)),
            version_transform: self.list(fields.get("version-transform"), Self::version_transform),
            schedule: fields.get("schedule").map(|node| self.schedule(node)),
        };
        self.refuse_unknown(&fields);
        update
    }

    fn release_monitor(&mut self, node: &Node) -> ReleaseMonitor {
        let mut fields = self.fields(node, "`release-monitor`");
        let monitor = ReleaseMonitor {
            identifier: self.integer(fields.get("identifier")),
            strip_prefix: self.text(fields.get("strip-prefix")),
            strip_suffix: self.text(fields.get("strip-suffix")),
            version_filter_contains: self.text(fields.get("version-filter-contains")),
            version_filter_prefix: self.text(fields.get("version-filter-prefix")),
        };
        self.refuse_unknown(&fields);
        monitor
    }

    fn github_monitor(&mut self, node: &Node) -> GithubMonitor {
        let mut fields = self.fields(node, "`github`");
        let monitor = GithubMonitor {
            identifier: self.text(fields.get("identifier")),
            strip_prefix: self.text(fields.get("strip-prefix")),
            strip_suffix: self.text(fields.get("strip-suffix")),
            tag_filter: self.text(fields.get("tag-filter")),
            tag_filter_prefix: self.text(fields.get("tag-filter-prefix")),
            tag_filter_contains: self.text(fields.get("tag-filter-contains")),
            use_tag: self.boolean(fields.get("use-tag")),
        };
        self.refuse_unknown(&fields);
        monitor
    }

    fn git_monitor(&mut self, node: &Node) -> GitMonitor {
        let mut fields = self.fields(node, "`git`");
        let monitor = GitMonitor {
            strip_prefix: self.text(fields.get("strip-prefix")),
            strip_suffix: self.text(fields.get("strip-suffix")),
            tag_filter_prefix: self.text(fields.get("tag-filter-prefix")),
            tag_filter_contains: self.text(fields.get("tag-filter-contains")),
        };
        self.refuse_unknown(&fields);
        monitor
    }

    fn oci_monitor(&mut self, node: &Node) -> OciMonitor {
        let mut fields = self.fields(node, "`oci`");
        let monitor = OciMonitor {
            identifier: self.text(fields.get("identifier")),
            strip_prefix: self.text(fields.get("strip-prefix")),
            strip_suffix: self.text(fields.get("strip-suffix")),
            tag_filter_prefix: self.text(fields.get("tag-filter-prefix")),
            tag_filter_contains: self.text(fields.get("tag-filter-contains")),
        };
        self.refuse_unknown(&fields);
        monitor
    }

    fn version_data(&mut self, node: &Node) -> VersionData {
        let mut fields = self.fields(node, "`version_data`");
        let data = VersionData {
            version_format: self.text(fields.get("version_format")),
            sources: self.list(fields.get("sources"), Self::version_source),
        };
        self.refuse_unknown(&fields);
        data
    }

    fn version_source(&mut self, node: &Node) -> VersionSource {
        let mut fields = self.fields(node, "an entry of `sources`");
        let source = VersionSource {
            name: self.text(fields.get("name")),
            stream: self.text(fields.get("stream")),
            ignore: self.texts(fields.get("ignore")),
            commit_source: self.text(fields.get("commit_source")),
            use_release: self.boolean(fields.get("use_release")),
        };
        self.refuse_unknown(&fields);
        source
    }

    fn version_transform(&mut self, node: &Node) -> VersionTransform {
        let mut fields = self.fields(node, "an entry of `version-transform`");
        let transform = VersionTransform {
            pattern: self.text(fields.get("match")),
            replace: self.text(fields.get("replace")),
        };
        self.refuse_unknown(&fields);
        transform
    }

    fn schedule(&mut self, node: &Node) -> Schedule {
        let mut fields = self.fields(node, "`schedule`");
        let schedule =
            Schedule { reason: self.text(fields.get("reason")), period: self.text(fields.get("period")) };
        self.refuse_unknown(&fields);
        schedule
    }
}
