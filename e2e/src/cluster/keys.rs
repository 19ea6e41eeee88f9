//! The cluster's certificate authority, and who everybody is by it.
use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose};
use rcgen::{IsCa, KeyPair, KeyUsagePurpose};
use std::path::{Path, PathBuf};

/// Where machines see the folder of keys.
pub(super) const INSIDE: &str = "/kit/files/keys";

/// A folder of keys, certificates and kubeconfig files.
pub(super) struct Keys {
    folder: PathBuf,
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Keys {
    /// Makes the authority, and the key pair that service account tokens are signed with.
    pub(super) fn new(files: &Path) -> Result<Self> {
        let folder = files.join("keys");
        std::fs::create_dir_all(&folder)?;
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "kubernetes");
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
        let keys = Keys { folder, ca };
        keys.write("ca.crt", &keys.ca.pem())?;
        keys.write("ca.key", &keys.ca.key().serialize_pem())?;
        let accounts = KeyPair::generate()?;
        keys.write("accounts.pub", &accounts.public_key_pem())?;
        keys.write("accounts.key", &accounts.serialize_pem())?;
        Ok(keys)
    }

    /// Writes `FILE.crt` and `FILE.key`: `user`, a member of `group`, serving under `names`.
    pub(super) fn issue(&self, file: &str, user: &str, group: Option<&str>, names: &[&str]) -> Result<()> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, user);
        if let Some(group) = group {
            params.distinguished_name.push(DnType::OrganizationName, group);
        }
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate()?;
        self.write(&format!("{file}.crt"), &params.signed_by(&key, &self.ca)?.pem())?;
        self.write(&format!("{file}.key"), &key.serialize_pem())
    }

    /// Issues a client's certificate and writes `FILE.kubeconfig` for it, with which machines reach the API server.
    pub(super) fn client(&self, file: &str, user: &str, group: Option<&str>, server: &str) -> Result<()> {
        self.issue(file, user, group, &[])?;
        self.kubeconfig(file, file, INSIDE, server).map(drop)
    }

    /// Writes `NAME.kubeconfig` for whom `file` was issued to, who sees the folder of keys as `keys`.
    pub(super) fn kubeconfig(&self, name: &str, file: &str, keys: &str, server: &str) -> Result<PathBuf> {
        let name = format!("{name}.kubeconfig");
        let text = format!(
            r#"apiVersion: v1
kind: Config
clusters: [{{name: kit, cluster: {{server: "https://{server}", certificate-authority: "{keys}/ca.crt"}}}}]
users: [{{name: user, user: {{client-certificate: "{keys}/{file}.crt", client-key: "{keys}/{file}.key"}}}}]
contexts: [{{name: kit, context: {{cluster: kit, user: user}}}}]
current-context: kit
"#
        );
        self.write(&name, &text)?;
        Ok(self.folder.join(name))
    }

    /// The folder, as this machine sees it.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    fn write(&self, name: &str, text: &str) -> Result<()> {
        std::fs::write(self.folder.join(name), text).with_context(|| format!("cannot write {name}"))
    }
}
