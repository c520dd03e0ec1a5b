//! One argon2 hash after the other in the same memory. An allocation for each hash would stay with the heap of the
//! thread that made it (glibc keeps one for each thread, and gives back only what is at its end), so memory would grow
//! with the number of threads.

use argon2::{
    Algorithm, Argon2, Block, Params, Version,
    password_hash::{self, Output, ParamsString, PasswordHash, SaltString},
};

use super::{PasswordError, random};

const KIB: usize = Block::SIZE / 1024;
/// No hash was ever made with this much, so one that asks for more is broken.
const MOST_KIB: usize = 1 << 20;

/// Empty by default; as large as the dearest hash that was made or checked in it.
#[derive(Default)]
pub(super) struct Memory(Vec<Block>);

impl Memory {
    /// Enough for hashes of this cost, and there: every page is written.
    pub fn of(params: &Params) -> Result<Self, PasswordError> {
        let mut memory = Self::default();
        memory.at_least(params.block_count())?;
        Ok(memory)
    }

    fn at_least(&mut self, blocks: usize) -> Result<(), PasswordError> {
        if blocks * KIB > MOST_KIB {
            return Err(PasswordError::TooMuchMemory(blocks * KIB));
        }
        let missing = blocks.saturating_sub(self.0.len());
        self.0.reserve_exact(missing);
        self.0.resize(self.0.len() + missing, Block::default());
        Ok(())
    }

    /// A PHC string with a salt of its own.
    pub fn hash(&mut self, hasher: &Argon2<'_>, password: &[u8]) -> Result<String, PasswordError> {
        let raw = random::<16>()?;
        let salt = SaltString::encode_b64(&raw).map_err(PasswordError::Hash)?;
        let hash = PasswordHash {
            algorithm: Algorithm::Argon2id.ident(),
            version: Some(Version::V0x13.into()),
            params: ParamsString::try_from(hasher.params()).map_err(PasswordError::Hash)?,
            salt: Some(salt.as_salt()),
            hash: Some(self.output(hasher, password, &raw, Params::DEFAULT_OUTPUT_LEN)?),
        };
        Ok(hash.to_string())
    }

    /// Is this the password of that hash? At the cost that stands in the hash.
    pub fn fits(&mut self, phc: &str, password: &[u8]) -> Result<bool, PasswordError> {
        let corrupt = |_: password_hash::Error| PasswordError::Corrupt;
        let stored = PasswordHash::new(phc).map_err(corrupt)?;
        let (Some(salt), Some(expected)) = (stored.salt, stored.hash) else { return Err(PasswordError::Corrupt) };
        let algorithm = Algorithm::try_from(stored.algorithm).map_err(corrupt)?;
        let version =
            stored.version.map_or(Ok(Version::default()), Version::try_from).map_err(|_| PasswordError::Corrupt)?;
        let params = Params::try_from(&stored).map_err(corrupt)?;
        let mut bytes = [0; password_hash::Salt::MAX_LENGTH];
        let salt = salt.decode_b64(&mut bytes).map_err(corrupt)?;
        let found = self.output(&Argon2::new(algorithm, version, params), password, salt, expected.len())?;
        // Compared in constant time.
        Ok(found == expected)
    }

    fn output(
        &mut self,
        hasher: &Argon2<'_>,
        password: &[u8],
        salt: &[u8],
        length: usize,
    ) -> Result<Output, PasswordError> {
        self.at_least(hasher.params().block_count())?;
        let fill = |out: &mut [u8]| {
            hasher.hash_password_into_with_memory(password, salt, out, &mut self.0).map_err(Into::into)
        };
        Output::init_with(length, fill).map_err(PasswordError::Hash)
    }

    #[cfg(test)]
    pub fn address(&self) -> usize {
        self.0.as_ptr().addr()
    }
}

#[cfg(test)]
mod tests {
    use argon2::password_hash::{PasswordHasher, PasswordVerifier};

    use super::*;

    fn argon(memory_kib: u32, passes: u32) -> Argon2<'static> {
        Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(memory_kib, passes, 1, None).unwrap())
    }

    /// Whatever a buffer held before, of a larger hash or a smaller one, does not matter; and hashes are those of the
    /// library.
    #[test]
    fn as_the_library_does_it_in_memory_that_was_used() {
        let mut memory = Memory::default();
        for (memory_kib, passes) in [(64, 2), (256, 1), (32, 3), (256, 2)] {
            let hasher = argon(memory_kib, passes);
            let phc = memory.hash(&hasher, b"a password").unwrap();
            let parsed = PasswordHash::new(&phc).unwrap();
            assert!(hasher.verify_password(b"a password", &parsed).is_ok(), "{phc}");
            let salt = SaltString::encode_b64(b"sixteen bytes ok").unwrap();
            let theirs = hasher.hash_password(b"another", &salt).unwrap().to_string();
            assert!(memory.fits(&theirs, b"another").unwrap() && !memory.fits(&theirs, b"a password").unwrap());
        }
        assert_eq!(memory.0.len(), 256, "as large as the dearest");
        let endless = format!("$argon2id$v=19$m={},t=1,p=1$c2FsdHNhbHRzYWx0$c2FsdHNhbHRzYWx0c2FsdA", u32::MAX);
        assert!(matches!(memory.fits(&endless, b"x"), Err(PasswordError::TooMuchMemory(_))));
    }
}
