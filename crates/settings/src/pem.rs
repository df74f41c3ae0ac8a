//! Files of certificates and keys.

use std::io;
use std::path::Path;

/// Reads a file of certificates or keys in PEM, without the byte order mark that some editors put
/// before it: the first certificate behind one would be passed over without a word.
///
/// ```
/// # let folder = std::env::temp_dir().join(format!("read-pem-{}", std::process::id()));
/// # std::fs::create_dir_all(&folder)?;
/// # let file = folder.join("ca.pem");
/// std::fs::write(&file, "\u{feff}-----BEGIN CERTIFICATE-----")?;
/// assert_eq!(fluent_settings::read_pem(&file)?, b"-----BEGIN CERTIFICATE-----");
/// # std::fs::remove_dir_all(&folder)?;
/// # Ok::<(), std::io::Error>(())
/// ```
///
/// # Errors
/// Those of reading it.
pub fn read_pem(path: &Path) -> io::Result<Vec<u8>> {
    let mut pem = std::fs::read(path)?;
    let mark = "\u{feff}".as_bytes();
    if pem.starts_with(mark) {
        pem.drain(..mark.len());
    }
    Ok(pem)
}
