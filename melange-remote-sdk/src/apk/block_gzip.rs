//! One gzip member, compressed in blocks on all processors. Its bytes depend on the content alone.
//!
//! Each block is compressed with the last 32 KiB before it as its dictionary and ends on a whole byte (RFC 1951: an empty
//! stored block), so that the blocks behind each other are one stream, as `pigz` writes it.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, sync_channel};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};
use rayon::{ThreadPool, ThreadPoolBuilder};

use super::gzip::{MemberKind, header};

/// Bytes of a block. They decide what the packages' bytes are: another number makes other packages of the same content.
const BLOCK_BYTES: usize = 512 << 10;
/// As far as deflate looks back.
const DICTIONARY_BYTES: usize = 32 << 10;
/// The level of zlib. Of 300 MB of programs and documents it leaves as many bytes as what upstream compresses with, to a
/// thousandth, with two thirds of the work of level 6, which leaves 3 % fewer.
const LEVEL: Compression = Compression::new(3);
/// Blocks of one member under way, whatever the number of processors: what they take of memory is bounded by it.
const IN_FLIGHT_MAX: usize = 16;

/// The threads that compress, the same for all packages that are written at once. `None` where the system gives no threads:
/// the work is done then by whoever writes.
static THREADS: LazyLock<Option<ThreadPool>> = LazyLock::new(|| {
    let threads = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    // Whoever waits for a block whose work died is told, as its sender is dropped.
    let pool = ThreadPoolBuilder::new().num_threads(threads).panic_handler(drop);
    let pool = pool.thread_name(|number| format!("compress-{number}")).build();
    pool.inspect_err(|error| tracing::warn!(%error, "packages are compressed by one thread each")).ok()
});

/// A compressed block.
struct Block {
    deflated: Vec<u8>,
    checksum: Crc,
    /// The room that its content lay in.
    content: Vec<u8>,
}

/// Compresses what is written into one member. [`Self::finish`] ends it.
pub(crate) struct BlockEncoder<W> {
    sink: W,
    content: Vec<u8>,
    dictionary: Vec<u8>,
    under_way: VecDeque<Receiver<io::Result<Block>>>,
    rooms: Vec<Vec<u8>>,
    checksum: Crc,
}

impl<W: Write> BlockEncoder<W> {
    /// Begins a member.
    ///
    /// # Errors
    /// The sink's.
    pub(crate) fn new(kind: MemberKind, mut sink: W) -> io::Result<Self> {
        sink.write_all(&header(kind))?;
        let (content, dictionary, checksum) = (Vec::new(), Vec::new(), Crc::new());
        Ok(Self { sink, content, dictionary, under_way: VecDeque::new(), rooms: Vec::new(), checksum })
    }

    /// Ends the member and returns the sink.
    ///
    /// # Errors
    /// The sink's.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        // The last one is compressed here: most packages have no other.
        let content = std::mem::take(&mut self.content);
        let last = compressed(content, &self.dictionary, FlushCompress::Finish)?;
        while let Some(block) = self.under_way.pop_front() {
            self.take(&block)?;
        }
        self.put(last)?;
        self.sink.write_all(&self.checksum.sum().to_le_bytes())?;
        // RFC 1952: the size modulo 2^32, which is what the checksum counts.
        self.sink.write_all(&self.checksum.amount().to_le_bytes())?;
        Ok(self.sink)
    }

    /// Hands a full block to the threads.
    fn compress(&mut self) -> io::Result<()> {
        let room = self.rooms.pop().unwrap_or_default();
        let content = std::mem::replace(&mut self.content, room);
        let tail = content.len().saturating_sub(DICTIONARY_BYTES);
        let next = content[tail..].to_vec();
        let dictionary = std::mem::replace(&mut self.dictionary, next);
        let (tell, told) = sync_channel(1);
        let work = move || {
            // Whoever wrote may have given up.
            let _ = tell.send(compressed(content, &dictionary, FlushCompress::Sync));
        };
        match &*THREADS {
            Some(threads) => threads.spawn(work),
            None => work(),
        }
        self.under_way.push_back(told);
        let most = THREADS.as_ref().map_or(1, |threads| 2 * threads.current_num_threads());
        while self.under_way.len() >= most.min(IN_FLIGHT_MAX)
            && let Some(block) = self.under_way.pop_front()
        {
            self.take(&block)?;
        }
        Ok(())
    }

    fn take(&mut self, block: &Receiver<io::Result<Block>>) -> io::Result<()> {
        let died = |_| io::Error::other("the compression of a block died");
        self.put(block.recv().map_err(died)??)
    }

    fn put(&mut self, mut block: Block) -> io::Result<()> {
        self.checksum.combine(&block.checksum);
        self.sink.write_all(&block.deflated)?;
        block.content.clear();
        self.rooms.push(block.content);
        Ok(())
    }
}

impl<W: Write> Write for BlockEncoder<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.content.len() == BLOCK_BYTES {
            self.compress()?;
        }
        let taken = bytes.len().min(BLOCK_BYTES - self.content.len());
        self.content.extend_from_slice(&bytes[..taken]);
        Ok(taken)
    }

    /// Nothing is forced out: where blocks end must not depend on it.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Compresses a block.
fn compressed(content: Vec<u8>, dictionary: &[u8], flush: FlushCompress) -> io::Result<Block> {
    let mut checksum = Crc::new();
    checksum.update(&content);
    let mut deflate = Compress::new(LEVEL, false);
    if !dictionary.is_empty() {
        deflate.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    let mut deflated = Vec::with_capacity(content.len() / 2 + 1_024);
    let mut rest = content.as_slice();
    loop {
        let before = deflate.total_in();
        let status = deflate.compress_vec(rest, &mut deflated, flush).map_err(io::Error::other)?;
        let taken = usize::try_from(deflate.total_in() - before).map_err(io::Error::other)?;
        rest = &rest[taken..];
        let is_done = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            // All is out when there is room left.
            _ => rest.is_empty() && deflated.len() < deflated.capacity(),
        };
        if is_done {
            return Ok(Block { deflated, checksum, content });
        }
        deflated.reserve(content.len() / 4 + 1_024);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use flate2::bufread::GzDecoder;
    use proptest::prelude::*;

    use super::*;

    fn encoded(content: &[u8], piece: usize) -> Vec<u8> {
        let mut encoder = BlockEncoder::new(MemberKind::Package, Vec::new()).unwrap();
        content.chunks(piece).for_each(|piece| encoder.write_all(piece).unwrap());
        encoder.finish().unwrap()
    }

    /// Text, numbers and noise in turn.
    fn content(size: usize) -> Vec<u8> {
        let mut rng = fastrand::Rng::with_seed(size as u64);
        let mut content = Vec::with_capacity(size + 4_096);
        while content.len() < size {
            match rng.u8(0..3) {
                0 => content.extend(std::iter::repeat_n(rng.u8(..), rng.usize(1..4_096))),
                1 => (0..rng.usize(1..4_096)).for_each(|_| content.push(rng.u8(..))),
                _ => {
                    (0..rng.usize(1..512)).for_each(|_| content.extend(format!("{:03} ", rng.u8(..)).bytes()))
                }
            }
        }
        content.truncate(size);
        content
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        #[test]
        fn it_is_one_member_whose_bytes_do_not_depend_on_the_pieces(
            blocks in 0usize..4, more in prop_oneof![0usize..3, 0usize..100_000], piece in 1_000usize..2_000_000,
        ) {
            let content = content(blocks * BLOCK_BYTES + more);
            let bytes = encoded(&content, piece);
            prop_assert_eq!(&bytes, &encoded(&content, BLOCK_BYTES));
            prop_assert_eq!(&bytes[..10], &header(MemberKind::Package));
            let mut decoder = GzDecoder::new(&bytes[..]);
            let mut back = Vec::new();
            decoder.read_to_end(&mut back).unwrap();
            prop_assert!(back == content);
            prop_assert!(decoder.into_inner().is_empty(), "nothing stands behind the member");
        }
    }

    #[test]
    fn a_block_looks_back_into_the_one_before() {
        let noise: Vec<u8> = content(BLOCK_BYTES * 2).into_iter().rev().collect();
        let mut rng = fastrand::Rng::with_seed(1);
        let once: Vec<u8> = (0..DICTIONARY_BYTES / 2).map(|_| rng.u8(..)).collect();
        let mut twice = noise[..BLOCK_BYTES - once.len()].to_vec();
        twice.extend_from_slice(&once);
        let alone = encoded(&twice, BLOCK_BYTES).len();
        twice.extend_from_slice(&once);
        assert!(encoded(&twice, BLOCK_BYTES).len() < alone + 1_000, "what stood before is referred to");
    }

    #[test]
    fn a_sink_that_takes_nothing_is_told() {
        struct Full(usize);
        impl Write for Full {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(bytes.len()).ok_or(io::ErrorKind::StorageFull)?;
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let content = content(BLOCK_BYTES * 40);
        let mut encoder = BlockEncoder::new(MemberKind::Package, Full(100_000)).unwrap();
        let error = encoder.write_all(&content).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    }
}
