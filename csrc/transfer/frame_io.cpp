// FrameReader and FrameWriter of socket.h.
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <system_error>

#include "transfer/os_error.h"
#include "transfer/socket.h"

namespace flexkv {

using protocol::FrameType;

namespace {

constexpr std::size_t read_step_bytes = 64u << 10;
constexpr std::size_t merge_segment_bytes = 64u << 10;
constexpr std::size_t max_fds_per_message = 4;  // one is legal; room for more, so that they are closed and not lost
constexpr std::size_t id_pair_bytes = 2 * sizeof(std::int64_t);

bool sent_by(FrameType type, PeerRole sender) {
  switch (type) {
    case FrameType::register_rank:
    case FrameType::mapped:
    case FrameType::ack:
    case FrameType::bye:
      return sender == PeerRole::agent;
    case FrameType::pool:
    case FrameType::refused:
    case FrameType::op:
    case FrameType::cancel:
    case FrameType::lost:
      return sender == PeerRole::engine;
  }
  return false;
}

// Bounds on the body before it has been read; check_body then asks for the exact length.
bool length_possible(FrameType type, std::size_t length) {
  switch (type) {
    case FrameType::register_rank:
      return length >= sizeof(protocol::RegisterBody) &&
             length <= sizeof(protocol::RegisterBody) + protocol::max_tag_bytes;
    case FrameType::pool:
      return length == sizeof(protocol::PoolBody);
    case FrameType::refused:
      return length <= protocol::max_tag_bytes;
    case FrameType::mapped:
      return length == sizeof(protocol::MappedBody);
    case FrameType::op:
      return length >= sizeof(protocol::OpBody) && (length - sizeof(protocol::OpBody)) % id_pair_bytes == 0 &&
             (length - sizeof(protocol::OpBody)) / id_pair_bytes <= protocol::max_op_blocks;
    case FrameType::cancel:
      return length == sizeof(protocol::CancelBody);
    case FrameType::ack:
      return length == sizeof(protocol::AckBody);
    case FrameType::bye:
      return length == 0;
    case FrameType::lost:
      return length == sizeof(protocol::LostBody);
  }
  return false;
}

}  // namespace

bool FrameReader::reject(std::string reason) {
  if (error_.empty()) error_ = std::move(reason);
  return false;
}

bool FrameReader::take_descriptors(msghdr& message) {
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      fds_.emplace_back(fd);
    }
  }
  const bool legal = sender_ == PeerRole::engine ? fds_.size() <= 1 : fds_.empty();
  if (!legal || (message.msg_flags & MSG_CTRUNC) != 0) {
    fds_.clear();
    return reject("descriptors that belong to no frame");
  }
  return true;
}

IoStatus FrameReader::fill(int socket_fd) {
  if (failed()) return IoStatus::error;
  if (begin_ > 0) {
    std::copy(buffer_.begin() + static_cast<std::ptrdiff_t>(begin_),
              buffer_.begin() + static_cast<std::ptrdiff_t>(end_), buffer_.begin());
    end_ -= begin_;
    begin_ = 0;
  }
  if (buffer_.size() < end_ + read_step_bytes) buffer_.resize(end_ + read_step_bytes);  // grows with what has come
  iovec vector = {buffer_.data() + end_, buffer_.size() - end_};
  alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int) * max_fds_per_message)> control;
  msghdr message = {};
  message.msg_iov = &vector;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t received = 0;
  do {
    received = ::recvmsg(socket_fd, &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  } while (received < 0 && errno == EINTR);
  if (received < 0) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return IoStatus::would_block;
    if (errno == ECONNRESET || errno == EPIPE) return IoStatus::closed;
    (void)reject("recvmsg: " + std::generic_category().message(errno));
    return IoStatus::error;
  }
  if (!take_descriptors(message)) return IoStatus::error;
  if (received == 0) return IoStatus::closed;
  end_ += static_cast<std::size_t>(received);
  return IoStatus::ok;
}

bool FrameReader::check_header(const protocol::FrameHeader& header) {
  if (header.magic != protocol::magic) {
    return reject("bad magic");
  }
  if (header.version != protocol::version) {
    return reject("protocol version " + std::to_string(header.version) + ", expected " +
                  std::to_string(protocol::version));
  }
  const auto type = static_cast<FrameType>(header.type);
  if (!sent_by(type, sender_)) {
    return reject("frame type " + std::to_string(header.type) + " is not one this peer may send");
  }
  if (header.length > protocol::max_body_bytes || !length_possible(type, header.length)) {
    return reject("frame type " + std::to_string(header.type) + " with a body of " + std::to_string(header.length) +
                  " bytes");
  }
  return true;
}

bool FrameReader::check_body(const Frame& frame) {
  std::size_t expected = frame.body.size();
  if (frame.type == FrameType::register_rank) {
    expected = sizeof(protocol::RegisterBody) + read_body<protocol::RegisterBody>(frame.body).tag_bytes;
  } else if (frame.type == FrameType::op) {
    const auto op = read_body<protocol::OpBody>(frame.body);
    if (op.direction != protocol::Direction::load && op.direction != protocol::Direction::store) {
      return reject("op with an unknown direction");
    }
    if (op.layer_ticket != 0 && op.direction != protocol::Direction::load) {
      return reject("a store with a layer ticket");
    }
    expected = sizeof(protocol::OpBody) + id_pair_bytes * std::size_t{op.num_blocks};
  }
  if (frame.body.size() != expected) {
    return reject("a body of " + std::to_string(frame.body.size()) + " bytes where its fields say " +
                  std::to_string(expected));
  }
  if (frame.type == FrameType::ack &&
      read_body<protocol::AckBody>(frame.body).status > protocol::AckStatus::cancelled) {
    return reject("ack with an unknown status");
  }
  if (frame.type == FrameType::lost && read_body<protocol::LostBody>(frame.body).layer_ticket == 0) {
    return reject("a lost load without a layer ticket");
  }
  return true;
}

bool FrameReader::next(Frame& frame) {
  if (failed() || end_ - begin_ < sizeof(protocol::FrameHeader)) return false;
  const auto header = read_body<protocol::FrameHeader>(std::span(buffer_).subspan(begin_, end_ - begin_));
  if (!check_header(header)) return false;
  const std::size_t body_begin = begin_ + sizeof(header);
  if (end_ - body_begin < header.length) return false;
  const auto first = buffer_.begin() + static_cast<std::ptrdiff_t>(body_begin);
  frame.type = static_cast<FrameType>(header.type);
  frame.body.assign(first, first + static_cast<std::ptrdiff_t>(header.length));
  frame.fd.reset();
  if (!check_body(frame)) return false;
  if (frame.type == FrameType::pool) {
    if (fds_.empty()) return reject("POOL without a descriptor");
    frame.fd = std::move(fds_.front());
    fds_.pop_front();
  }
  begin_ = body_begin + header.length;
  return true;
}

void FrameWriter::push(FrameType type, std::span<const std::byte> head, std::span<const std::byte> tail1,
                       std::span<const std::byte> tail2, int fd) {
  Fd copy;
  if (fd >= 0) {
    copy = Fd(::fcntl(fd, F_DUPFD_CLOEXEC, 0));
    if (!copy.valid()) throw_errno(errno, "cannot duplicate a descriptor to send");
  }
  const std::size_t length = head.size() + tail1.size() + tail2.size();
  const protocol::FrameHeader header = {protocol::magic, protocol::version, static_cast<std::uint16_t>(type),
                                        static_cast<std::uint32_t>(length)};
  if (segments_.empty() || copy.valid() || segments_.back().bytes.size() >= merge_segment_bytes) {
    segments_.push_back(Segment{{}, std::move(copy)});
  }
  std::vector<std::byte>& bytes = segments_.back().bytes;
  for (const std::span<const std::byte> part : {bytes_of(header), head, tail1, tail2}) {
    bytes.insert(bytes.end(), part.begin(), part.end());
  }
  pending_bytes_ += sizeof(header) + length;
}

IoStatus FrameWriter::flush(int socket_fd) {
  while (!segments_.empty()) {
    Segment& segment = segments_.front();
    iovec vector = {segment.bytes.data() + sent_bytes_, segment.bytes.size() - sent_bytes_};
    msghdr message = {};
    message.msg_iov = &vector;
    message.msg_iovlen = 1;
    alignas(cmsghdr) std::array<std::byte, CMSG_SPACE(sizeof(int))> control = {};
    if (segment.fd.valid()) {
      message.msg_control = control.data();
      message.msg_controllen = control.size();
      cmsghdr* header = CMSG_FIRSTHDR(&message);
      header->cmsg_level = SOL_SOCKET;
      header->cmsg_type = SCM_RIGHTS;
      header->cmsg_len = CMSG_LEN(sizeof(int));
      const int fd = segment.fd.get();
      std::memcpy(CMSG_DATA(header), &fd, sizeof(int));
    }
    const ssize_t sent = ::sendmsg(socket_fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) {
      if (errno == EINTR) continue;
      if (errno == EAGAIN || errno == EWOULDBLOCK) return IoStatus::would_block;
      return errno == EPIPE || errno == ECONNRESET ? IoStatus::closed : IoStatus::error;
    }
    segment.fd.reset();
    sent_bytes_ += static_cast<std::size_t>(sent);
    pending_bytes_ -= static_cast<std::size_t>(sent);
    if (sent_bytes_ == segment.bytes.size()) {
      segments_.pop_front();
      sent_bytes_ = 0;
    }
  }
  return IoStatus::ok;
}

}  // namespace flexkv
