fn main() {
    println!("cargo::rerun-if-changed=certs/pinned-ca.pem");
}
