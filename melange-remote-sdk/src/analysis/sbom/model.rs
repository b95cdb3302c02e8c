//! Documents as they are written: the fields of SPDX 2.3 in their order.

use serde::Serialize;

/// What nobody says anything about.
pub(super) const NO_ASSERTION: &str = "NOASSERTION";

#[derive(Serialize)]
pub(super) struct Document {
    #[serde(rename = "SPDXID")]
    pub(super) id: String,
    pub(super) name: String,
    #[serde(rename = "spdxVersion")]
    pub(super) version: &'static str,
    #[serde(rename = "creationInfo")]
    pub(super) creation: Creation,
    #[serde(rename = "dataLicense")]
    pub(super) data_license: &'static str,
    #[serde(rename = "documentNamespace")]
    pub(super) namespace: String,
    #[serde(rename = "documentDescribes")]
    pub(super) describes: Vec<String>,
    pub(super) packages: Vec<Package>,
    pub(super) relationships: Vec<Relationship>,
    #[serde(rename = "hasExtractedLicensingInfos", skip_serializing_if = "Vec::is_empty")]
    pub(super) extracted: Vec<Extracted>,
}

#[derive(Serialize)]
pub(super) struct Creation {
    pub(super) created: String,
    pub(super) creators: Vec<String>,
    #[serde(rename = "licenseListVersion")]
    pub(super) list: &'static str,
}

#[derive(Serialize, Default)]
pub(super) struct Package {
    #[serde(rename = "SPDXID")]
    pub(super) id: String,
    pub(super) name: String,
    #[serde(rename = "versionInfo", skip_serializing_if = "String::is_empty")]
    pub(super) version: String,
    #[serde(rename = "filesAnalyzed")]
    pub(super) analyzed: bool,
    #[serde(rename = "licenseConcluded")]
    pub(super) concluded: &'static str,
    #[serde(rename = "licenseDeclared", skip_serializing_if = "String::is_empty")]
    pub(super) declared: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    #[serde(rename = "downloadLocation")]
    pub(super) location: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) originator: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) supplier: String,
    #[serde(rename = "copyrightText", skip_serializing_if = "String::is_empty")]
    pub(super) copyright: String,
    #[serde(rename = "primaryPackagePurpose", skip_serializing_if = "str::is_empty")]
    pub(super) purpose: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) checksums: Vec<Checksum>,
    #[serde(rename = "externalRefs", skip_serializing_if = "Vec::is_empty")]
    pub(super) references: Vec<Reference>,
}

#[derive(Serialize)]
pub(super) struct Checksum {
    pub(super) algorithm: &'static str,
    #[serde(rename = "checksumValue")]
    pub(super) value: String,
}

#[derive(Serialize)]
pub(super) struct Reference {
    #[serde(rename = "referenceCategory")]
    pub(super) category: &'static str,
    #[serde(rename = "referenceLocator")]
    pub(super) locator: String,
    #[serde(rename = "referenceType")]
    pub(super) kind: &'static str,
}

#[derive(Serialize)]
pub(super) struct Relationship {
    #[serde(rename = "spdxElementId")]
    pub(super) element: String,
    #[serde(rename = "relationshipType")]
    pub(super) kind: &'static str,
    #[serde(rename = "relatedSpdxElement")]
    pub(super) related: String,
}

#[derive(Serialize)]
pub(super) struct Extracted {
    #[serde(rename = "licenseId")]
    pub(super) id: String,
    #[serde(rename = "extractedText")]
    pub(super) text: String,
}
