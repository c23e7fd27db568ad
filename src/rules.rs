//! stub
/// stub
pub mod http {
    /// stub
    #[derive(Debug, Default, PartialEq, Eq)]
    pub struct Rules;
}
/// stub
pub mod ldap {
    /// stub
    #[derive(Debug, Default, PartialEq, Eq)]
    pub struct Rules;
}
