// FrameReader: any bytes in any pieces, descriptors among them. What it yields is what was sent, byte by byte; after an
// error it yields nothing; how the bytes are cut makes no difference; what its sender may send, the FrameWriter sends
// in the same bytes.
#include <fcntl.h>
#include <sys/socket.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "fuzz/fuzz_target.h"
#include "tests/check.h"
#include "transfer/socket.h"

namespace flexkv {
namespace {

struct SocketPair {
  std::array<Fd, 2> ends;
  SocketPair() {
    int fds[2] = {-1, -1};
    CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds) == 0);
    ends = {Fd(fds[0]), Fd(fds[1])};
  }
};

void send_piece(int socket_fd, std::span<const std::uint8_t> piece, int fd) {
  iovec vector = {const_cast<std::uint8_t*>(piece.data()), piece.size()};
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control = {};
  if (fd >= 0) {
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    std::memcpy(CMSG_DATA(header), &fd, sizeof(int));
  }
  CHECK(::sendmsg(socket_fd, &message, MSG_NOSIGNAL) == static_cast<ssize_t>(piece.size()));
}

// The frame as a FrameWriter sends it must be the bytes at the front of `stream`, which are taken from it.
void expect_at_front(const Frame& frame, std::span<const std::uint8_t>& stream) {
  SocketPair pair;
  FrameWriter writer;
  writer.push(frame.type, frame.body);
  const std::size_t length = sizeof(protocol::FrameHeader) + frame.body.size();
  CHECK(writer.pending_bytes() == length && length <= stream.size());
  CHECK(writer.flush(pair.ends[0].get()) == IoStatus::ok && !writer.pending());
  std::vector<std::uint8_t> bytes(length + 1);
  CHECK(::recv(pair.ends[1].get(), bytes.data(), bytes.size(), 0) == static_cast<ssize_t>(length));
  CHECK(std::equal(stream.begin(), stream.begin() + static_cast<std::ptrdiff_t>(length), bytes.begin()));
  stream = stream.subspan(length);
}

// In one piece the same bytes give the same frames, and the same error.
void expect_same_in_one_piece(PeerRole sender, const std::vector<std::uint8_t>& sent, std::size_t num_frames,
                              const std::string& error) {
  if (sent.empty()) return;
  SocketPair pair;
  FrameReader reader(sender);
  send_piece(pair.ends[0].get(), sent, -1);
  CHECK(reader.fill(pair.ends[1].get()) == IoStatus::ok);
  Frame frame;
  for (; reader.next(frame); --num_frames) CHECK(num_frames > 0);
  CHECK(num_frames == 0 && reader.error() == error);
}

// Input: a byte with the sender's role, then pieces: a byte with the length (low 6 bits) and whether a descriptor comes
// along (all higher bits set), then as many bytes of the stream.
void read_stream(std::span<const std::uint8_t> input) {
  if (input.empty()) return;
  const PeerRole sender = input[0] % 2 == 0 ? PeerRole::agent : PeerRole::engine;
  input = input.subspan(1);
  SocketPair pair;
  const Fd travels(::open("/dev/null", O_RDONLY | O_CLOEXEC));
  FrameReader reader(sender);
  std::vector<std::uint8_t> sent;
  std::size_t seen = 0;
  std::size_t num_fds = 0;
  std::size_t num_frames = 0;
  bool any_fd = false;
  while (!input.empty() && !reader.failed()) {
    const bool with_fd = (input[0] & 0xc0) == 0xc0;
    const std::size_t length = std::min<std::size_t>(input[0] & 0x3f, input.size() - 1);
    const std::span<const std::uint8_t> piece = input.subspan(1, length);
    input = input.subspan(1 + length);
    if (piece.empty()) continue;
    send_piece(pair.ends[0].get(), piece, with_fd ? travels.get() : -1);
    num_fds += with_fd ? 1 : 0;
    any_fd = any_fd || with_fd;
    sent.insert(sent.end(), piece.begin(), piece.end());
    const IoStatus status = reader.fill(pair.ends[1].get());
    CHECK(status == (reader.failed() ? IoStatus::error : IoStatus::ok));
    Frame frame;
    std::span<const std::uint8_t> rest = std::span(sent).subspan(seen);
    while (reader.next(frame)) {
      ++num_frames;
      CHECK(!reader.failed());
      CHECK(frame.fd.valid() == (frame.type == protocol::FrameType::pool));
      CHECK(!frame.fd.valid() || num_fds-- > 0);
      expect_at_front(frame, rest);
    }
    seen = sent.size() - rest.size();
  }
  if (!any_fd) expect_same_in_one_piece(sender, sent, num_frames, reader.error());
  Frame frame;
  CHECK(!reader.next(frame));
  CHECK(!reader.failed() || reader.fill(pair.ends[1].get()) == IoStatus::error);
  pair.ends[0].reset();
  CHECK(reader.failed() || reader.fill(pair.ends[1].get()) == IoStatus::closed);
}

}  // namespace
}  // namespace flexkv

int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  flexkv::read_stream(std::span(data, size));
  return 0;
}
