// Runs the threads of one CUDA block as fibers that switch only at barriers and warp collectives.
//
// Caught, by an exception: a barrier that some threads reach at another line or never reach while others wait, a warp
// mask that lacks the calling lane, a warp mask that names a lane that does not exist or has returned.
#pragma once

#include "fiber.h"
#include "laboratory.h"

#include <vector_functions.h>
#include <vector_types.h>

#include <algorithm>
#include <cstring>
#include <exception>
#include <functional>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace emulation {

enum class Order : int { forward, reverse, random };
struct Settings {
  Order order = Order::forward;  // in which blocks and threads take their turns
  uint64_t seed = 0;
};
inline Settings settings;

struct Place {
  uint3 thread{}, block{};
  dim3 block_size{1, 1, 1}, grid_size{1, 1, 1};
};
inline Place place;  // what threadIdx and its like read

Span poison_static_shared();  // control.cpp; where they lie

enum class Vote { none, any, all, count };
enum class State : uint8_t { fresh, running, at_barrier, in_warp, returned };
struct alignas(16) Slot {
  unsigned char bytes[16];
};
struct Thread {
  uint3 index{};
  int number = 0;
  State state = State::fresh;
  Fiber* fiber = nullptr;
  const char* site = nullptr;  // the barrier's file and line
  Vote vote = Vote::none;
  uint32_t mask = 0, ballot = 0;
  int source = -1, predicate = 0;
  Slot given, received;
  void* operands = nullptr;  // of an operation that the lanes of a warp do together
};
using Together = void (*)(void* const (&operands)[32]);

class Block {
 public:
  // Runs body() once for every thread of the block with this number in the grid.
  void run(const std::function<void()>& body, uint64_t number, dim3 grid, dim3 size, size_t shared_bytes, uint64_t seed) {
    const uint3 at = make_uint3(number % grid.x, number / grid.x % grid.y, number / (uint64_t(grid.x) * grid.y));
    body_ = &body;
    place.block = at, place.grid_size = grid, place.block_size = size;
    const int count = static_cast<int>(size.x * size.y * size.z);
    // Shared memory starts as NaN and -1, so that what nobody wrote is seen.
    shared_.assign(shared_bytes / sizeof(Slot) + 1, Slot{});
    std::memset(shared_.data(), 0xFF, shared_.size() * sizeof(Slot));
    const Span static_shared = poison_static_shared();
    laboratory::begin_block(number, count, {reinterpret_cast<const char*>(shared_.data()), shared_bytes}, static_shared);
    threads_.assign(count, Thread{});
    order_.resize(count);
    for (int i = 0; i < count; ++i) {
      threads_[i].number = i;
      threads_[i].index = make_uint3(i % size.x, i / size.x % size.y, i / (size.x * size.y));
      order_[i] = settings.order == Order::reverse ? count - 1 - i : i;
    }
    if (settings.order == Order::random) {
      std::mt19937_64 random(seed);
      std::shuffle(order_.begin(), order_.end(), random);
    }
    live_ = count, next_ = 0, waiting_ = 0, ready_.clear(), ready_head_ = 0, error_ = nullptr;
    while (live_ > 0 && !error_) {
      Fiber* fiber = pick();
      if (fiber == nullptr) break;
      switch_from(host_, *fiber);
    }
    if (live_ == 0 && !error_) return;
    const std::string stuck = error_ ? "" : describe();
    idle_.clear(), fibers_.clear();  // they stand in the middle of kernels
    if (error_) std::rethrow_exception(error_);
    fail("deadlock: " + stuck);
  }

  // All live threads meet; gives the vote over their predicates.
  int barrier(const char* site, int predicate, Vote vote) {
    const laboratory::Pause pause;
    Thread& self = *current_;
    self.predicate = predicate, self.vote = vote, self.site = site, self.state = State::at_barrier;
    if (++waiting_ == live_) {
      release_barrier(&self);
    } else {
      wait();
    }
    laboratory::passed_barrier(self.number);
    return barrier_result_;
  }

  // All lanes of the mask meet; then every lane has received what lane `source` gave (source < 0: nothing).
  void collective(uint32_t mask, int source) {
    const laboratory::Pause pause;
    meet(mask, source, nullptr);
    laboratory::passed_collective(current_->number);
  }
  // All 32 lanes of a warp meet, and the last to come does the operation on what each of them brought.
  void together(void* operands, Together operation) {
    const laboratory::Pause pause;
    current_->operands = operands;
    meet(0xffffffffu, -1, operation);
    laboratory::passed_collective(current_->number);
  }

  Thread& current() { return *current_; }
  uint32_t active_lanes() const {
    const laboratory::Pause pause;
    uint32_t mask = 0;
    const int first = current_->number & ~31;
    for (int lane = 0; lane < 32 && first + lane < static_cast<int>(threads_.size()); ++lane)
      if (threads_[first + lane].state != State::returned) mask |= 1u << lane;
    return mask;
  }
  void* dynamic_shared() {
    const laboratory::Pause pause;
    return shared_.data();
  }

  // What a fiber does all its life: start fresh threads, then hand over to one that can go on.
  void serve() {
    Fiber::started(previous_ == &host_);
    for (;;) {
      Fiber* self = running_;
      while (next_ < order_.size() && !error_) {
        current_ = &threads_[order_[next_++]];
        current_->state = State::running;
        place.thread = current_->index;
        try {
          run_kernel();
        } catch (...) {
          error_ = std::current_exception();
        }
        current_->state = State::returned;
        --live_;
        if (error_) break;
        if (live_ > 0 && waiting_ == live_) try_release();
      }
      idle_.push_back(self);
      Fiber* next = error_ ? nullptr : pick();
      if (next == self) {
        continue;
      }
      switch_from(*self, next ? *next : host_);
    }
  }

 private:
  void run_kernel() {
    const laboratory::Trace trace;
    (*body_)();
  }
  void meet(uint32_t mask, int source, Together operation) {
    Thread& self = *current_;
    const int first = self.number & ~31;
    if (!(mask >> (self.number & 31) & 1)) fail(name(self) + ": the warp mask does not name the calling lane");
    for (int lane = 0; lane < 32; ++lane) {
      if (!(mask >> lane & 1)) continue;
      if (first + lane >= static_cast<int>(threads_.size()))
        fail(name(self) + ": the warp mask names lane " + std::to_string(lane) + ", past the end of the block");
      if (threads_[first + lane].state == State::returned)
        fail(name(self) + ": the warp mask names lane " + std::to_string(lane) + ", which has returned");
    }
    self.mask = mask, self.source = source, self.state = State::in_warp;
    uint32_t ballot = 0;
    for (int lane = 0; lane < 32; ++lane) {
      if (!(mask >> lane & 1)) continue;
      const Thread& other = threads_[first + lane];
      if (other.state != State::in_warp || other.mask != mask) return wait();
      if (other.predicate) ballot |= 1u << lane;
    }
    if (operation != nullptr) {
      void* operands[32];
      for (int lane = 0; lane < 32; ++lane) operands[lane] = threads_[first + lane].operands;
      operation(operands);
    }
    for (int lane = 0; lane < 32; ++lane) {  // the last lane to come serves all
      if (!(mask >> lane & 1)) continue;
      Thread& other = threads_[first + lane];
      if (other.source >= 0) {
        if (mask >> other.source & 1)
          other.received = threads_[first + other.source].given;
        else
          std::memset(&other.received, 0xFF, sizeof(Slot));  // undefined on a GPU
      }
      other.ballot = ballot, other.state = State::running;
      if (&other != &self) ready_.push_back(&other);
    }
  }
  static std::string name(const Thread& thread) {
    return "block (" + std::to_string(place.block.x) + ", " + std::to_string(place.block.y) + ", " +
           std::to_string(place.block.z) + ") thread " + std::to_string(thread.number);
  }
  std::string describe() const {
    int at_barrier = 0, in_warp = 0;
    const Thread* one = &threads_[0];
    for (const Thread& thread : threads_) {
      at_barrier += thread.state == State::at_barrier, in_warp += thread.state == State::in_warp;
      if (thread.state == State::at_barrier || thread.state == State::in_warp) one = &thread;
    }
    return name(*one) + ": " + std::to_string(at_barrier) + " threads wait at a barrier, " + std::to_string(in_warp) +
           " in a warp collective, " + std::to_string(threads_.size() - live_) + " have returned";
  }
  void try_release() {
    try {
      release_barrier(nullptr);
    } catch (...) {
      error_ = std::current_exception();
    }
  }
  void release_barrier(Thread* self) {
    int count = 0;
    const Thread* first = nullptr;
    for (const Thread& thread : threads_) {
      if (thread.state != State::at_barrier) continue;
      if (first == nullptr) first = &thread;
      if (std::strcmp(first->site, thread.site) != 0)
        fail("divergent barrier: " + name(*first) + " waits at " + first->site + ", " + name(thread) + " at " + thread.site);
      count += thread.predicate != 0;
    }
    barrier_result_ = first->vote == Vote::any ? count > 0 : first->vote == Vote::all ? count == waiting_ : count;
    waiting_ = 0;
    for (int i : order_) {
      Thread& thread = threads_[i];
      if (thread.state != State::at_barrier) continue;
      thread.state = State::running;
      if (&thread != self) ready_.push_back(&thread);
    }
  }
  // The fiber that goes on next, its thread made current; or an idle one for threads that have not begun.
  Fiber* pick() {
    if (ready_head_ < ready_.size()) {
      current_ = ready_[ready_head_++];
      if (ready_head_ == ready_.size()) ready_.clear(), ready_head_ = 0;
      place.thread = current_->index;
      return current_->fiber;
    }
    if (next_ == order_.size()) return nullptr;
    if (idle_.empty()) {
      fibers_.push_back(std::make_unique<Fiber>(&Block::entry));
      return fibers_.back().get();
    }
    Fiber* fiber = idle_.back();
    idle_.pop_back();
    return fiber;
  }
  void wait() {
    Thread* self = current_;
    Fiber* fiber = self->fiber = running_;
    Fiber* next = error_ ? nullptr : pick();
    switch_from(*fiber, next ? *next : host_);
    current_ = self;
    place.thread = self->index;
  }
  void switch_from(Fiber& from, Fiber& to) {
    running_ = &to, previous_ = &from;
    from.switch_to(to);
    running_ = &from;
  }
  static void entry();

  const std::function<void()>* body_ = nullptr;
  std::vector<Thread> threads_;
  std::vector<int> order_;
  std::vector<Thread*> ready_;
  size_t ready_head_ = 0, next_ = 0;
  std::vector<Slot> shared_;
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber*> idle_;
  Fiber host_;
  Fiber *running_ = nullptr, *previous_ = nullptr;
  Thread* current_ = nullptr;
  int live_ = 0, waiting_ = 0, barrier_result_ = 0;
  std::exception_ptr error_;
};

inline Block* block = nullptr;  // the one that runs now
inline void Block::entry() { block->serve(); }

}  // namespace emulation
