// Answers the hooks of -fsanitize=thread in place of that sanitizer's library: performance facts of emulated kernels.
//
// The n-th execution of a site, since they last met, by the lanes of a warp is one instruction. Its accesses of up to 4
// bytes a lane are one request; of 8 bytes, one a half of the warp; of 16, one a quarter.
//   global memory   sectors: the 32-byte lines that a request touches; used: its distinct bytes; least: lines that these
//                   would fill
//   shared memory   ways: the most distinct 4-byte words that a request wants of one of the 32 banks
//   moved, needed   32 bytes a sector of every request, against the distinct bytes that the launch touches
//   races           two accesses of a byte, one a write, that no barrier separates: by two threads of a block, or by two
//                   blocks of a launch
// This file is compiled without the sanitizer. Memory is global if it is neither shared nor a stack nor in the library.
#include "block.h"

#include <link.h>
#include <pthread.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <map>
#include <sstream>
#include <tuple>
#include <unordered_map>
#include <unordered_set>
#include <vector>

namespace emulation::laboratory {

volatile bool tracing = false;

namespace {

constexpr int kLanes = 32, kSector = 32, kBanks = 32;

struct Access {
  uintptr_t address;
  uint32_t lane, bytes;
};
struct SiteKey {
  uintptr_t place;
  bool write, shared;
  bool operator<(const SiteKey& o) const { return std::tie(place, write, shared) < std::tie(o.place, o.write, o.shared); }
};
struct Site {
  uint64_t requests = 0, lanes = 0, used = 0, sectors = 0, least = 0, ways = 0, worst = 0;
  uint32_t bytes = 0;  // of a lane
};
struct Instruction {
  uintptr_t place;
  uint32_t warp, meeting, number;
  bool write, shared;
  bool operator==(const Instruction& o) const {
    return place == o.place && warp == o.warp && meeting == o.meeting && number == o.number && shared == o.shared;
  }
};
struct Hash {
  size_t operator()(const Instruction& i) const {
    uint64_t h = i.place;
    for (const uint64_t v : {uint64_t(i.warp), uint64_t(i.meeting), uint64_t(i.number)}) h = (h ^ v) * 0x9E3779B97F4A7C15ull;
    return h ^ (h >> 29);
  }
};
struct Thread {
  uint32_t barriers = 0, warp_barriers = 0, meetings = 0;
  std::unordered_map<uintptr_t, uint32_t> executed;  // of each site, since the threads last met
};
struct Visit {  // who touched a byte last
  int64_t block = -1;
  int32_t thread = 0;
  uint32_t barriers = 0, warp_barriers = 0;
  bool atomic = false;
  uintptr_t place = 0;
};
struct Shadow {
  Visit write, read, other_read;  // other_read: the last by another thread than read's
};
struct Race {
  uint64_t count = 0;
  bool shared = false;
};
struct Kernel {
  uint64_t launches = 0, least_blocks = 0;  // least_blocks: of the smallest launch
  dim3 block;
  size_t dynamic_shared = 0;
  uint64_t moved[2] = {}, needed[2] = {};  // read, written
  std::map<SiteKey, Site> sites;
  std::map<std::pair<uintptr_t, uintptr_t>, Race> races;
};

std::map<const void*, Kernel> kernels;
std::vector<const void*> launch_order;
Kernel* kernel = nullptr;
std::vector<Thread> threads;
std::unordered_map<Instruction, std::vector<Access>, Hash> instructions;
std::vector<Shadow> shared_shadow;
std::unordered_map<uintptr_t, std::array<Shadow, 4>> global_shadow;  // by the address of 4 bytes
std::unordered_map<uintptr_t, std::array<uint32_t, 2>> touched;      // sector -> bytes read, bytes written
std::map<uintptr_t, uintptr_t> stacks;                               // begin -> end
std::vector<std::pair<uintptr_t, uintptr_t>> images;                 // of this library
uintptr_t library_base = 0, host_begin = 0, host_end = 0;
Span dynamic_memory, static_memory;
int64_t block_number = 0;
bool atomic = false;

bool within(uintptr_t a, Span span) { return a - reinterpret_cast<uintptr_t>(span.begin) < span.size; }

void find_library() {
  if (!images.empty()) return;
  ::dl_iterate_phdr(
      [](dl_phdr_info* library, size_t, void*) {
        std::vector<std::pair<uintptr_t, uintptr_t>> found;
        bool mine = false;
        for (int i = 0; i < library->dlpi_phnum; ++i) {
          const auto& segment = library->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD) continue;
          const uintptr_t start = library->dlpi_addr + segment.p_vaddr;
          found.push_back({start, start + segment.p_memsz});
          const uintptr_t here = reinterpret_cast<uintptr_t>(&find_library);
          mine = mine || (start <= here && here < start + segment.p_memsz);
        }
        if (!mine) return 0;
        images = found, library_base = library->dlpi_addr;
        return 1;
      },
      nullptr);
}

void find_host_stack() {
  pthread_attr_t attributes;
  void* begin = nullptr;
  size_t size = 0;
  if (pthread_getattr_np(pthread_self(), &attributes) != 0) fail("no bounds of the host's stack");
  pthread_attr_getstack(&attributes, &begin, &size);
  pthread_attr_destroy(&attributes);
  host_begin = reinterpret_cast<uintptr_t>(begin), host_end = host_begin + size;
}

bool on_a_stack(uintptr_t a) {
  if (a - host_begin < host_end - host_begin) return true;
  const auto after = stacks.upper_bound(a);
  return after != stacks.begin() && a < std::prev(after)->second;
}

bool in_the_library(uintptr_t a) {
  return std::any_of(images.begin(), images.end(), [a](const auto& image) { return image.first <= a && a < image.second; });
}

// Whether no barrier stands between an earlier visit and this one, of which at least one must not be atomic.
bool unordered(const Visit& before, const Visit& now) {
  if (before.block < 0 || (before.atomic && now.atomic)) return false;
  if (before.block != now.block) return true;
  if (before.thread == now.thread || before.barriers != now.barriers) return false;
  const bool same_warp = before.thread / kLanes == now.thread / kLanes;
  return !(same_warp && before.warp_barriers != now.warp_barriers);
}

void visit(Shadow& shadow, const Visit& now, bool write, bool shared) {
  const auto report = [&](const Visit& before) {
    if (!unordered(before, now)) return false;
    Race& race = kernel->races[{before.place, now.place}];
    ++race.count, race.shared = shared;
    return true;
  };
  if (write) {
    if (!report(shadow.write) && !report(shadow.read)) report(shadow.other_read);
    shadow.write = now;
  } else {
    report(shadow.write);
    if (shadow.read.thread != now.thread || shadow.read.block != now.block) shadow.other_read = shadow.read;
    shadow.read = now;
  }
}

void evaluate_request(Site& site, const Instruction& at, const std::vector<const Access*>& lanes) {
  ++site.requests, site.lanes += lanes.size();
  std::unordered_map<uintptr_t, uint32_t> lines;  // 32 bytes -> which of them
  std::array<std::vector<uintptr_t>, kBanks> words;
  for (const Access* access : lanes) {
    site.bytes = std::max(site.bytes, access->bytes);
    for (uintptr_t a = access->address; a < access->address + access->bytes; ++a) {
      lines[a / kSector] |= 1u << (a % kSector);
      if (!at.shared) continue;
      std::vector<uintptr_t>& bank = words[a / 4 % kBanks];
      if (std::find(bank.begin(), bank.end(), a / 4) == bank.end()) bank.push_back(a / 4);
    }
  }
  uint64_t used = 0;
  for (const auto& [line, mask] : lines) used += static_cast<uint64_t>(__builtin_popcount(mask));
  site.used += used, site.least += (used + kSector - 1) / kSector;
  if (at.shared) {
    size_t ways = 1;
    for (const auto& bank : words) ways = std::max(ways, bank.size());
    site.ways += ways, site.worst = std::max<uint64_t>(site.worst, ways);
    return;
  }
  site.sectors += lines.size(), site.worst = std::max<uint64_t>(site.worst, lines.size());
  kernel->moved[at.write] += lines.size() * kSector;
  for (const auto& [line, mask] : lines) touched[line][at.write] |= mask;
}

void end_block() {
  for (auto& [at, accesses] : instructions) {
    Site& site = kernel->sites[{at.place, at.write, at.shared}];
    uint32_t bytes = 4;
    for (const Access& access : accesses) bytes = std::max(bytes, access.bytes);
    const uint32_t together = kLanes * 4 / bytes;
    for (uint32_t first = 0; first < kLanes; first += together) {
      std::vector<const Access*> lanes;
      for (const Access& access : accesses)
        if (access.lane >= first && access.lane < first + together) lanes.push_back(&access);
      if (!lanes.empty()) evaluate_request(site, at, lanes);
    }
  }
  instructions.clear();
}

void record(uintptr_t a, uint32_t bytes, bool write, uintptr_t place) {
  const bool dynamic = within(a, dynamic_memory), shared = dynamic || within(a, static_memory);
  if (!shared && (on_a_stack(a) || in_the_library(a))) return;
  const Pause pause;
  const int number = block->current().number;
  Thread& thread = threads[static_cast<size_t>(number)];
  uintptr_t address = a;
  if (shared) {  // static variables lie behind the dynamic memory
    const size_t behind = (dynamic_memory.size + 127) / 128 * 128;
    address = dynamic ? a - reinterpret_cast<uintptr_t>(dynamic_memory.begin)
                      : a - reinterpret_cast<uintptr_t>(static_memory.begin) + behind;
  }
  const uint32_t warp = static_cast<uint32_t>(number) / kLanes;
  instructions[{place, warp, thread.meetings, thread.executed[place * 4 + write * 2 + shared]++, write, shared}].push_back(
      {address, static_cast<uint32_t>(number) % kLanes, bytes});
  const Visit now{block_number, number, thread.barriers, thread.warp_barriers, atomic, place};
  for (uint32_t i = 0; i < bytes; ++i) {
    if (shared) {
      visit(shared_shadow[address + i], now, write, true);
    } else {
      visit(global_shadow[(a + i) / 4][(a + i) % 4], now, write, false);
    }
  }
}

// A copy of a struct is made of the widest words that divide its size.
void record_range(uintptr_t a, size_t size, bool write, uintptr_t place) {
  const size_t word = size % 16 == 0 ? 16 : size % 8 == 0 ? 8 : size % 4 == 0 ? 4 : 1;
  for (size_t i = 0; i < size; i += word) record(a + i, static_cast<uint32_t>(word), write, place);
}

void meet(int thread) { threads[static_cast<size_t>(thread)].executed.clear(), ++threads[static_cast<size_t>(thread)].meetings; }

void write_json(std::ostringstream& out, const void* function, const Kernel& k) {
  out << "{\"kernel\":" << reinterpret_cast<uintptr_t>(function) - library_base << ",\"launches\":" << k.launches
      << ",\"least_blocks\":" << k.least_blocks << ",\"threads\":" << k.block.x * k.block.y * k.block.z
      << ",\"dynamic_shared\":" << k.dynamic_shared;
  out << ",\"moved\":[" << k.moved[0] << ',' << k.moved[1] << "],\"needed\":[" << k.needed[0] << ',' << k.needed[1] << ']';
  out << ",\"sites\":[";
  const char* comma = "";
  for (const auto& [key, s] : k.sites) {
    out << comma << "{\"place\":" << key.place - library_base << ",\"write\":" << (key.write ? "true" : "false")
        << ",\"shared\":" << (key.shared ? "true" : "false") << ",\"bytes\":" << s.bytes << ",\"requests\":" << s.requests
        << ",\"lanes\":" << s.lanes << ",\"used\":" << s.used << ",\"sectors\":" << s.sectors << ",\"least\":" << s.least << ",\"ways\":" << s.ways
        << ",\"worst\":" << s.worst << '}';
    comma = ",";
  }
  out << "],\"races\":[";
  comma = "";
  for (const auto& [pair, race] : k.races) {
    out << comma << "{\"first\":" << pair.first - library_base << ",\"second\":" << pair.second - library_base
        << ",\"shared\":" << (race.shared ? "true" : "false") << ",\"count\":" << race.count << '}';
    comma = ",";
  }
  out << "]}";
}

}  // namespace

Atomic::Atomic() { atomic = true; }
Atomic::~Atomic() { atomic = false; }

void add_stack(const void* begin, size_t size) {
  stacks[reinterpret_cast<uintptr_t>(begin)] = reinterpret_cast<uintptr_t>(begin) + size;
}
void drop_stack(const void* begin) { stacks.erase(reinterpret_cast<uintptr_t>(begin)); }

void begin_launch(const void* function, dim3 grid, dim3 block, size_t shared_bytes) {
  find_library(), find_host_stack();
  kernel = &kernels[function];
  if (kernel->launches == 0) launch_order.push_back(function);
  ++kernel->launches, kernel->block = block;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  kernel->least_blocks = kernel->launches == 1 ? blocks : std::min(kernel->least_blocks, blocks);
  kernel->dynamic_shared = std::max(kernel->dynamic_shared, shared_bytes);
  global_shadow.clear(), touched.clear();
}

void begin_block(uint64_t block, int count, Span dynamic_shared, Span static_shared) {
  end_block();
  block_number = static_cast<int64_t>(block);
  dynamic_memory = dynamic_shared, static_memory = static_shared;
  threads.assign(static_cast<size_t>(count), Thread{});
  shared_shadow.assign((dynamic_shared.size + 127) / 128 * 128 + static_shared.size, Shadow{});
}

void end_launch() {
  end_block();
  for (const auto& [sector, masks] : touched)
    for (int write = 0; write < 2; ++write) kernel->needed[write] += static_cast<uint64_t>(__builtin_popcount(masks[write]));
}

void passed_barrier(int thread) { meet(thread), ++threads[static_cast<size_t>(thread)].barriers; }
void passed_collective(int thread) { meet(thread); }
void passed_warp_barrier(int thread) { ++threads[static_cast<size_t>(thread)].warp_barriers; }

}  // namespace emulation::laboratory

namespace lab = emulation::laboratory;

// A hook's caller is the access; one byte before the return address lies inside the call.
#define DDARTS_PLACE (reinterpret_cast<uintptr_t>(__builtin_return_address(0)) - 1)
#define DDARTS_HOOK(name, bytes, write) \
  void name(void* p) {                  \
    if (lab::tracing) lab::record(reinterpret_cast<uintptr_t>(p), bytes, write, DDARTS_PLACE); \
  }
#define DDARTS_HOOKS(bytes)                                \
  DDARTS_HOOK(__tsan_read##bytes, bytes, false)            \
  DDARTS_HOOK(__tsan_write##bytes, bytes, true)            \
  DDARTS_HOOK(__tsan_unaligned_read##bytes, bytes, false)  \
  DDARTS_HOOK(__tsan_unaligned_write##bytes, bytes, true)  \
  DDARTS_HOOK(__tsan_volatile_read##bytes, bytes, false)   \
  DDARTS_HOOK(__tsan_volatile_write##bytes, bytes, true)

extern "C" {
DDARTS_HOOKS(1)
DDARTS_HOOKS(2)
DDARTS_HOOKS(4)
DDARTS_HOOKS(8)
DDARTS_HOOKS(16)
void __tsan_read_range(void* p, size_t size) {
  if (lab::tracing) lab::record_range(reinterpret_cast<uintptr_t>(p), size, false, DDARTS_PLACE);
}
void __tsan_write_range(void* p, size_t size) {
  if (lab::tracing) lab::record_range(reinterpret_cast<uintptr_t>(p), size, true, DDARTS_PLACE);
}
void __tsan_init() {}
void __tsan_func_entry(void*) {}
void __tsan_func_exit() {}
void __tsan_vptr_update(void**, void*) {}
void __tsan_vptr_read(void**) {}
// Of the host's code alone: guards of static variables, reference counts.
unsigned char __tsan_atomic8_load(const volatile unsigned char* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
int __tsan_atomic32_load(const volatile int* p, int) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }
int __tsan_atomic32_fetch_add(volatile int* p, int v, int) { return __atomic_fetch_add(p, v, __ATOMIC_SEQ_CST); }
int __tsan_atomic32_fetch_sub(volatile int* p, int v, int) { return __atomic_fetch_sub(p, v, __ATOMIC_SEQ_CST); }

__attribute__((visibility("default"))) void laboratory_forget() {
  lab::kernels.clear(), lab::launch_order.clear(), lab::kernel = nullptr;
}
// What was seen since laboratory_forget, as JSON; places and kernels are addresses in the library's file.
__attribute__((visibility("default"))) const char* laboratory_report() {
  static std::string text;
  std::ostringstream out;
  out << '[';
  for (size_t i = 0; i < lab::launch_order.size(); ++i) {
    if (i > 0) out << ',';
    lab::write_json(out, lab::launch_order[i], lab::kernels.at(lab::launch_order[i]));
  }
  out << ']';
  text = out.str();
  return text.c_str();
}
}
