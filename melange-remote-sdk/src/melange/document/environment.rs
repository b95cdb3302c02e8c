//! The `environment` section: apko's image configuration as far as builds use it.

use serde::Serialize;

use super::decode::Decoder;
use super::{Text, TextMap};
use crate::text::yaml::Node;

/// A build or test environment.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Environment {
    /// Repositories, keys and packages.
    pub contents: Contents,
    /// Users and groups.
    pub accounts: Accounts,
    /// Environment variables of every step.
    pub environment: TextMap,
    /// Changes to the file tree.
    pub paths: Vec<PathMutation>,
    /// What an image made of the environment would be told; builds read it and do not use it.
    #[cfg_attr(feature = "schema", schemars(flatten))]
    pub image: Image,
}

/// The parts of an image configuration that do not change a build.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Image {
    /// What the image runs.
    pub entrypoint: Entrypoint,
    /// Its arguments.
    pub cmd: Text,
    /// The signal that stops it.
    pub stop_signal: Text,
    /// Its working directory.
    pub work_dir: Text,
    /// Architectures; a build has one of its own.
    pub archs: Vec<Text>,
    /// Where it comes from.
    pub vcs_url: Text,
    /// Free annotations.
    pub annotations: TextMap,
    /// Another configuration that it builds on.
    pub include: Text,
    /// Mount points.
    pub volumes: Vec<Text>,
}

/// What an image runs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Entrypoint {
    /// `service-bundle` or empty.
    #[cfg_attr(feature = "schema", schemars(rename = "type"))]
    #[serde(rename = "type", skip_serializing_if = "is_blank")]
    pub kind: Text,
    /// A command.
    #[serde(skip_serializing_if = "is_blank")]
    pub command: Text,
    /// A line for a shell.
    #[serde(skip_serializing_if = "is_blank")]
    pub shell_fragment: Text,
    /// Services by name.
    #[serde(skip_serializing_if = "TextMap::is_empty")]
    pub services: TextMap,
}

/// Repositories, keys and packages.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "snake_case", deny_unknown_fields)
)]
pub struct Contents {
    /// Repositories used during the build only.
    pub build_repositories: Vec<Text>,
    /// Repositories.
    pub repositories: Vec<Text>,
    /// Keys that sign them.
    pub keyring: Vec<Text>,
    /// Packages, with constraints.
    pub packages: Vec<Text>,
    /// An image to build on, which builds do not use.
    #[cfg_attr(feature = "schema", schemars(rename = "baseimage"))]
    pub baseimage: BaseImage,
}

/// An image to build on.
#[derive(Debug, Clone, Default)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema), schemars(deny_unknown_fields))]
pub struct BaseImage {
    /// Where it lies.
    pub image: Text,
    /// Where the index of what it holds lies.
    pub apkindex: Text,
}

/// Users and groups.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Accounts {
    /// The account that steps run as: a name or a number.
    pub run_as: Text,
    /// Users to add.
    pub users: Vec<User>,
    /// Groups to add.
    pub groups: Vec<Group>,
}

/// A user.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct User {
    /// Its name.
    pub username: Text,
    /// Its id.
    pub uid: u32,
    /// Its group's id; the user's id when missing.
    pub gid: Option<u32>,
    /// Its shell.
    pub shell: Text,
    /// Its home.
    pub homedir: Text,
}

/// A group.
#[derive(Debug, Clone, Default)]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct Group {
    /// Its name.
    pub groupname: Text,
    /// Its id.
    pub gid: u32,
    /// Its members.
    pub members: Vec<Text>,
}

/// A change to the file tree after all packages are installed.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(
    feature = "schema",
    derive(schemars::JsonSchema),
    schemars(rename_all = "kebab-case", deny_unknown_fields)
)]
pub struct PathMutation {
    /// The path.
    pub path: Text,
    /// `directory`, `empty-file`, `hardlink`, `symlink` or `permissions`.
    #[cfg_attr(feature = "schema", schemars(rename = "type"))]
    #[serde(rename = "type")]
    pub kind: Text,
    /// The owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Permission bits.
    #[serde(skip_serializing_if = "is_zero")]
    pub permissions: u32,
    /// The target of a link.
    #[serde(skip_serializing_if = "is_blank")]
    pub source: Text,
    /// Whether the change goes for everything below.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub recursive: bool,
}

fn is_blank(text: &Text) -> bool {
    text.is_empty()
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// What a path may be.
const PATH_KINDS: [&str; 5] = ["directory", "empty-file", "hardlink", "symlink", "permissions"];

impl Decoder<'_> {
    pub(super) fn environment(&mut self, node: &Node) -> Environment {
        let mut fields = self.fields(node, "`environment`");
        let environment = Environment {
            contents: self.contents(fields.get("contents")),
            accounts: self.accounts(fields.get("accounts")),
            environment: self.text_map(fields.get("environment")),
            paths: self.list(fields.get("paths"), Self::path_mutation),
            image: Image {
                entrypoint: fields.get("entrypoint").map(|node| self.entrypoint(node)).unwrap_or_default(),
                cmd: self.text(fields.get("cmd")),
                stop_signal: self.text(fields.get("stop-signal")),
                work_dir: self.text(fields.get("work-dir")),
                archs: self.texts(fields.get("archs")),
                vcs_url: self.text(fields.get("vcs-url")),
                annotations: self.text_map(fields.get("annotations")),
                include: self.text(fields.get("include")),
                volumes: self.texts(fields.get("volumes")),
            },
        };
        self.text(fields.get("format"));
        if let Some(layering) = fields.get("layering") {
            let mut inner = self.fields(layering, "`layering`");
            self.text(inner.get("strategy"));
            self.integer(inner.get("budget"));
            self.refuse_unknown(&inner);
        }
        if let Some(certificates) = fields.get("certificates") {
            let mut inner = self.fields(certificates, "`certificates`");
            self.list(inner.get("additional"), Self::named_content);
            self.refuse_unknown(&inner);
        }
        self.refuse_unknown(&fields);
        environment
    }

    fn entrypoint(&mut self, node: &Node) -> Entrypoint {
        let mut fields = self.fields(node, "`entrypoint`");
        let entrypoint = Entrypoint {
            kind: self.text(fields.get("type")),
            command: self.text(fields.get("command")),
            shell_fragment: self.text(fields.get("shell-fragment")),
            services: self.text_map(fields.get("services")),
        };
        self.refuse_unknown(&fields);
        entrypoint
    }

    /// An entry with a `name` and its `content`, which builds drop.
    fn named_content(&mut self, node: &Node) {
        let mut fields = self.fields(node, "an entry with a name and its content");
        self.text(fields.get("name"));
        self.text(fields.get("content"));
        self.refuse_unknown(&fields);
    }

    fn contents(&mut self, node: Option<&Node>) -> Contents {
        let Some(node) = node else { return Contents::default() };
        let mut fields = self.fields(node, "`contents`");
        let contents = Contents {
            build_repositories: self.texts(fields.get("build_repositories")),
            repositories: self.texts(fields.get("repositories")),
            keyring: self.texts(fields.get("keyring")),
            packages: self.texts(fields.get("packages")),
            baseimage: fields.get("baseimage").map(|node| self.baseimage(node)).unwrap_or_default(),
        };
        self.texts(fields.get("runtime_repositories"));
        self.list(fields.get("runtime_keyring"), Self::named_content);
        self.refuse_unknown(&fields);
        contents
    }

    fn baseimage(&mut self, node: &Node) -> BaseImage {
        let mut fields = self.fields(node, "`baseimage`");
        let image =
            BaseImage { image: self.text(fields.get("image")), apkindex: self.text(fields.get("apkindex")) };
        self.refuse_unknown(&fields);
        image
    }

    fn accounts(&mut self, node: Option<&Node>) -> Accounts {
        let Some(node) = node else { return Accounts::default() };
        let mut fields = self.fields(node, "`accounts`");
        let accounts = Accounts {
            run_as: self.text(fields.get("run-as")),
            users: self.list(fields.get("users"), Self::user),
            groups: self.list(fields.get("groups"), Self::group),
        };
        self.refuse_unknown(&fields);
        accounts
    }

    fn user(&mut self, node: &Node) -> User {
        let mut fields = self.fields(node, "a user");
        let user = User {
            username: self.text(fields.get("username")),
            uid: self.id(fields.get("uid")).unwrap_or_default(),
            gid: self.id(fields.get("gid")),
            shell: self.text(fields.get("shell")),
            homedir: self.text(fields.get("homedir")),
        };
        self.refuse_unknown(&fields);
        let uid = fields.get("uid");
        if user.username.is_empty() {
            self.error(node.at, "a user has no `username`").hint = Some("add `username:`".to_owned());
        } else if uid.is_none() {
            let message = format!("the user `{}` has no `uid`", &*user.username);
            self.error(node.at, message).hint = Some("add `uid:` with a number from 1".to_owned());
        } else if let Some(uid) = uid.filter(|uid| uid.scalar() == Some("0")) {
            let message = format!("the user `{}` must not have the uid of root", &*user.username);
            self.error(uid.at, message).hint = Some("use a number from 1".to_owned());
        }
        user
    }

    fn group(&mut self, node: &Node) -> Group {
        let mut fields = self.fields(node, "a group");
        let group = Group {
            groupname: self.text(fields.get("groupname")),
            gid: self.id(fields.get("gid")).unwrap_or_default(),
            members: self.texts(fields.get("members")),
        };
        self.refuse_unknown(&fields);
        if group.groupname.is_empty() {
            self.error(node.at, "a group has no `groupname`").hint = Some("add `groupname:`".to_owned());
        }
        group
    }

    fn id(&mut self, node: Option<&Node>) -> Option<u32> {
        let number = self.integer(node)?;
        match u32::try_from(number) {
            Ok(id) => Some(id),
            Err(_) => {
                self.error(node?.at, format!("the id {number} is too large"));
                None
            }
        }
    }

    fn path_mutation(&mut self, node: &Node) -> PathMutation {
        let mut fields = self.fields(node, "an entry of `paths`");
        let mutation = PathMutation {
            path: self.text(fields.get("path")),
            kind: self.text(fields.get("type")),
            uid: self.id(fields.get("uid")),
            gid: self.id(fields.get("gid")),
            permissions: self.id(fields.get("permissions")).unwrap_or_default(),
            source: self.text(fields.get("source")),
            recursive: self.boolean(fields.get("recursive")),
        };
        self.refuse_unknown(&fields);
        if !PATH_KINDS.contains(&&*mutation.kind) {
            let at = if mutation.kind.at.line > 0 { mutation.kind.at } else { node.at };
            let message = format!("{:?} is no type of a path", mutation.kind.value);
            self.error(at, message).hint = Some(format!("known: {}", PATH_KINDS.join(", ")));
        }
        mutation
    }
}
