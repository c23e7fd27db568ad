//! The attributes whose spellings are known: those of RFC 4519 and 4524, those that hold secrets, and Active Directory's usual ones.
//! Refuses to know which of them are denied.

/// One attribute.
pub(super) struct Known {
    /// Its usual name, its other names, its OIDs: Active Directory has some of its own.
    pub(super) names: &'static [&'static str],
    /// The attribute of which it is a subtype.
    pub(super) superior: Option<&'static str>,
}

const fn plain(names: &'static [&'static str]) -> Known {
    Known { names, superior: None }
}

/// A subtype of `name` (RFC 4519, 2.18).
const fn naming(names: &'static [&'static str]) -> Known {
    Known { names, superior: Some("name") }
}

/// A subtype of `distinguishedName` (RFC 4519, 2.7).
const fn naming_others(names: &'static [&'static str]) -> Known {
    Known { names, superior: Some("distinguishedName") }
}

/// All of them. An OID that is missing here is never taken for an attribute that may be seen, so the list need not be complete.
pub(super) const KNOWN: &[Known] = &[
    plain(&["objectClass", "2.5.4.0"]),
    plain(&["name", "2.5.4.41", "1.2.840.113556.1.4.1"]),
    plain(&["distinguishedName", "2.5.4.49"]),
    naming(&["cn", "commonName", "2.5.4.3"]),
    naming(&["sn", "surname", "2.5.4.4"]),
    naming(&["c", "countryName", "2.5.4.6"]),
    naming(&["l", "localityName", "2.5.4.7"]),
    naming(&["st", "stateOrProvinceName", "2.5.4.8"]),
    naming(&["o", "organizationName", "2.5.4.10"]),
    naming(&["ou", "organizationalUnitName", "2.5.4.11"]),
    naming(&["title", "2.5.4.12"]),
    naming(&["givenName", "gn", "2.5.4.42"]),
    naming(&["initials", "2.5.4.43"]),
    naming(&["generationQualifier", "2.5.4.44"]),
    naming(&["pseudonym", "2.5.4.65"]),
    naming_others(&["aliasedObjectName", "aliasedEntryName", "2.5.4.1"]),
    naming_others(&["member", "2.5.4.31"]),
    naming_others(&["owner", "2.5.4.32"]),
    naming_others(&["roleOccupant", "2.5.4.33"]),
    naming_others(&["seeAlso", "2.5.4.34"]),
    plain(&["serialNumber", "2.5.4.5"]),
    plain(&["street", "streetAddress", "2.5.4.9", "1.2.840.113556.1.2.256"]),
    plain(&["description", "2.5.4.13"]),
    plain(&["businessCategory", "2.5.4.15"]),
    plain(&["postalAddress", "2.5.4.16"]),
    plain(&["postalCode", "2.5.4.17"]),
    plain(&["postOfficeBox", "2.5.4.18"]),
    plain(&["physicalDeliveryOfficeName", "2.5.4.19"]),
    plain(&["telephoneNumber", "2.5.4.20"]),
    plain(&["facsimileTelephoneNumber", "fax", "2.5.4.23"]),
    plain(&["userCertificate", "2.5.4.36"]),
    plain(&["x500UniqueIdentifier", "2.5.4.45"]),
    plain(&["dnQualifier", "2.5.4.46"]),
    plain(&["uniqueMember", "2.5.4.50"]),
    plain(&["uid", "userid", "0.9.2342.19200300.100.1.1"]),
    plain(&["mail", "rfc822Mailbox", "0.9.2342.19200300.100.1.3"]),
    plain(&["manager", "0.9.2342.19200300.100.1.10"]),
    plain(&["homePhone", "homeTelephoneNumber", "0.9.2342.19200300.100.1.20"]),
    plain(&["dc", "domainComponent", "0.9.2342.19200300.100.1.25"]),
    plain(&["mobile", "mobileTelephoneNumber", "0.9.2342.19200300.100.1.41"]),
    plain(&["pager", "pagerTelephoneNumber", "0.9.2342.19200300.100.1.42"]),
    plain(&["jpegPhoto", "0.9.2342.19200300.100.1.60"]),
    plain(&["co", "friendlyCountryName", "0.9.2342.19200300.100.1.43", "1.2.840.113556.1.2.131"]),
    plain(&["email", "emailAddress", "pkcs9email", "1.2.840.113549.1.9.1"]),
    plain(&["departmentNumber", "2.16.840.1.113730.3.1.2"]),
    plain(&["employeeNumber", "2.16.840.1.113730.3.1.3"]),
    plain(&["employeeType", "2.16.840.1.113730.3.1.4"]),
    plain(&["displayName", "2.16.840.1.113730.3.1.241", "1.2.840.113556.1.2.13"]),
    plain(&["uidNumber", "1.3.6.1.1.1.1.0"]),
    plain(&["gidNumber", "1.3.6.1.1.1.1.1"]),
    plain(&["homeDirectory", "1.3.6.1.1.1.1.3"]),
    plain(&["loginShell", "1.3.6.1.1.1.1.4"]),
    plain(&["memberUid", "1.3.6.1.1.1.1.12"]),
    plain(&["memberOf", "1.2.840.113556.1.2.102"]),
    plain(&["sAMAccountName", "1.2.840.113556.1.4.221"]),
    plain(&["userPrincipalName", "1.2.840.113556.1.4.656"]),
    plain(&["servicePrincipalName", "1.2.840.113556.1.4.771"]),
    plain(&["objectGUID", "1.2.840.113556.1.4.2"]),
    plain(&["objectSid", "1.2.840.113556.1.4.146"]),
    plain(&["sIDHistory", "1.2.840.113556.1.4.609"]),
    plain(&["objectCategory", "1.2.840.113556.1.4.782"]),
    plain(&["userAccountControl", "1.2.840.113556.1.4.8"]),
    plain(&["accountExpires", "1.2.840.113556.1.4.159"]),
    plain(&["pwdLastSet", "1.2.840.113556.1.4.96"]),
    plain(&["whenCreated", "1.2.840.113556.1.2.2"]),
    plain(&["whenChanged", "1.2.840.113556.1.2.3"]),
    plain(&["department", "1.2.840.113556.1.2.141"]),
    plain(&["company", "1.2.840.113556.1.2.146"]),
    plain(&["employeeID", "1.2.840.113556.1.4.35"]),
    plain(&["proxyAddresses", "1.2.840.113556.1.2.210"]),
    plain(&["info", "1.2.840.113556.1.2.81"]),
    plain(&["nTSecurityDescriptor", "1.2.840.113556.1.2.281"]),
    // What holds secrets.
    plain(&["userPassword", "2.5.4.35"]),
    plain(&["authPassword", "1.3.6.1.4.1.4203.1.3.4"]),
    plain(&["pwdHistory", "1.3.6.1.4.1.42.2.27.8.1.20"]),
    plain(&["userPKCS12", "2.16.840.1.113730.3.1.216"]),
    plain(&["sambaLMPassword", "1.3.6.1.4.1.7165.2.1.24"]),
    plain(&["sambaNTPassword", "1.3.6.1.4.1.7165.2.1.25"]),
    plain(&["sambaPasswordHistory", "1.3.6.1.4.1.7165.2.1.54"]),
    plain(&["krbPrincipalKey", "2.16.840.1.113719.1.301.4.39.1"]),
    plain(&["unicodePwd", "1.2.840.113556.1.4.90"]),
    plain(&["dBCSPwd", "1.2.840.113556.1.4.55"]),
    plain(&["lmPwdHistory", "1.2.840.113556.1.4.160"]),
    plain(&["ntPwdHistory", "1.2.840.113556.1.4.94"]),
    plain(&["supplementalCredentials", "1.2.840.113556.1.4.125"]),
    plain(&["unixUserPassword", "1.2.840.113556.1.4.1910"]),
    plain(&["currentValue", "1.2.840.113556.1.4.27"]),
    plain(&["priorValue", "1.2.840.113556.1.4.100"]),
    plain(&["initialAuthIncoming", "1.2.840.113556.1.4.539"]),
    plain(&["initialAuthOutgoing", "1.2.840.113556.1.4.540"]),
    plain(&["trustAuthIncoming", "1.2.840.113556.1.4.129"]),
    plain(&["trustAuthOutgoing", "1.2.840.113556.1.4.135"]),
    plain(&["pekList", "1.2.840.113556.1.4.865"]),
    plain(&["msDS-ExecuteScriptPassword", "1.2.840.113556.1.4.1783"]),
    plain(&["msDS-ManagedPassword", "1.2.840.113556.1.4.2196"]),
    plain(&["msFVE-RecoveryPassword", "1.2.840.113556.1.4.1964"]),
    plain(&["msFVE-KeyPackage", "1.2.840.113556.1.4.1999"]),
    plain(&["msTPM-OwnerInformation", "1.2.840.113556.1.4.1966"]),
    plain(&["msPKIDPAPIMasterKeys", "1.2.840.113556.1.4.1893"]),
    plain(&["msPKIAccountCredentials", "1.2.840.113556.1.4.1894"]),
    plain(&["ms-Mcs-AdmPwd", "1.2.840.113556.1.8000.2554.50051.45980.28112.18903.35903.6685103.1224907.2.1"]),
    plain(&["msLAPS-Password", "1.2.840.113556.1.6.44.1.2"]),
    plain(&["msLAPS-EncryptedPassword", "1.2.840.113556.1.6.44.1.3"]),
    plain(&["msLAPS-EncryptedPasswordHistory", "1.2.840.113556.1.6.44.1.4"]),
    plain(&["msLAPS-EncryptedDSRMPassword", "1.2.840.113556.1.6.44.1.5"]),
    plain(&["msLAPS-EncryptedDSRMPasswordHistory", "1.2.840.113556.1.6.44.1.6"]),
];
