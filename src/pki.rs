//! stub
pub mod tls {
    pub fn explain(e: &std::io::Error, _: &crate::base::endpoint::HostPort) -> crate::base::code::Failure {
        crate::base::code::Failure::new(crate::base::code::Code::TlsFailed, e)
    }
}
