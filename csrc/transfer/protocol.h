// The framed protocol between a TransferEngine and the copy agents of the GPU workers, on a Unix stream socket.
//
//   frame:  magic u32 | version u16 | type u16 | length u32 (bytes of body, <= max_body_bytes) | body little-endian
//
//   agent -> engine   REGISTER   once: rank, geometry (RegisterBody, then a UTF-8 layout tag)
//   engine -> agent   POOL       once, after every rank has registered: stride, slots, generation; memfd by SCM_RIGHTS
//   engine -> agent   REFUSED    registration rejected; body is the reason in UTF-8; the engine closes
//   agent -> engine   MAPPED     slots [0, n) can be used by this rank (mapped, registered with the device)
//   engine -> agent   OP         copy descriptor: OpBody, then n x i64 slot ids, then n x i64 device block ids
//   engine -> agent   CANCEL     op id: do not start it; an op already running runs on
//   engine -> agent   LOST       layer ticket: no OP with it comes any more; whoever waits for that load is let go
//   agent -> engine   ACK        op id, status, bytes, duration: exactly one for each OP; after it the agent never
//                                touches the op's slots or blocks again
//   agent -> engine   BYE        all ops acknowledged; the agent unregisters and will close
//
// Peers check: magic, version, type, exact body length for its type, ids in range, SO_PEERCRED uid equal to their own.
// A peer that breaks a rule is disconnected with one log line; the other side is unharmed.
// No frame holds a pointer except the pool base, which is used only when both ends are one process (SO_PEERCRED pid).
#pragma once
#include <cstdint>

namespace flexkv::protocol {

inline constexpr std::uint32_t magic = 0x564b4c46;  // "FLKV"
inline constexpr std::uint16_t version = 3;
inline constexpr std::uint32_t max_body_bytes = 64u << 20;
inline constexpr std::uint32_t max_tag_bytes = 4096;
inline constexpr std::uint32_t max_op_blocks = 1u << 20;

enum class FrameType : std::uint16_t {
  register_rank = 1,
  pool = 2,
  refused = 3,
  mapped = 4,
  op = 5,
  cancel = 6,
  ack = 7,
  bye = 8,
  lost = 9
};

enum class Direction : std::uint32_t { load = 0 /* host -> device, H2D */, store = 1 /* device -> host, D2H */ };

enum class AckStatus : std::uint32_t { done = 0, failed = 1, cancelled = 2 };

struct FrameHeader {
  std::uint32_t magic;
  std::uint16_t version;
  std::uint16_t type;
  std::uint32_t length;
};
static_assert(sizeof(FrameHeader) == 12);

struct RegisterBody {
  std::uint32_t rank;        // 0 .. num_ranks-1 on this engine
  std::uint32_t num_ranks;   // as the agent believes; must be what the engine expects
  std::uint64_t num_blocks;  // device blocks
  std::uint64_t slot_bytes;  // bytes of one block on this rank
  std::uint32_t tokens_per_block;
  std::uint32_t tag_bytes;  // the layout tag follows: part of the fingerprint, equal geometry has equal tags
};
static_assert(sizeof(RegisterBody) == 32);

struct PoolBody {
  std::uint64_t generation;
  std::uint64_t num_slots;
  std::uint64_t stride_bytes;  // slot_bytes padded to 4 KiB
  std::uint64_t base_address;  // in the engine's process; 0: map the descriptor there, too
};
static_assert(sizeof(PoolBody) == 32);

struct MappedBody {
  std::uint64_t num_slots;
};

struct OpBody {
  std::uint64_t op_id;
  std::uint64_t after_step;    // may run once the worker has recorded this step (D17); 0: at once
  std::uint64_t layer_ticket;  // of a load by layers: what the worker asks for its progress with; else 0
  Direction direction;
  std::uint32_t num_blocks;  // ids follow: num_blocks x i64 host slots, num_blocks x i64 device blocks
};
static_assert(sizeof(OpBody) == 32);

struct CancelBody {
  std::uint64_t op_id;
};

struct LostBody {
  std::uint64_t layer_ticket;  // not 0
};

struct AckBody {
  std::uint64_t op_id;
  std::uint64_t bytes;
  std::uint64_t duration_ns;
  AckStatus status;
  std::uint32_t error;  // errno-like, 0 when done
};
static_assert(sizeof(AckBody) == 32);

}  // namespace flexkv::protocol
