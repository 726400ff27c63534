// The emulation's state that exists once in a library, and the switch that tests turn.
#include "block.h"

#include <link.h>

namespace emulation {

namespace {

thread_local char anchor = 0;  // its address makes this library's thread-local storage exist

struct Image {
  uintptr_t address_in_library;
  char* begin = nullptr;
  size_t size = 0;
};

int find_image(dl_phdr_info* library, size_t, void* data) {
  auto* image = static_cast<Image*>(data);
  bool mine = false;
  size_t size = 0;
  for (int i = 0; i < library->dlpi_phnum; ++i) {
    const auto& segment = library->dlpi_phdr[i];
    const uintptr_t start = library->dlpi_addr + segment.p_vaddr;
    if (segment.p_type == PT_LOAD)
      mine = mine || (start <= image->address_in_library && image->address_in_library < start + segment.p_memsz);
    if (segment.p_type == PT_TLS) size = segment.p_memsz;
  }
  if (!mine) return 0;
  image->begin = static_cast<char*>(library->dlpi_tls_data), image->size = size;
  return 1;
}

}  // namespace

// `__shared__` variables are this library's only thread-local ones: overwriting all of its thread-local storage
// before each block poisons them without knowing their names.
Span poison_static_shared() {
  volatile char* here = &anchor;
  *here = 1;  // before the first touch the storage does not exist
  struct Layout {
    ptrdiff_t before_anchor;
    size_t size;
  };
  static const Layout layout = [] {
    Image found{reinterpret_cast<uintptr_t>(&find_image)};
    ::dl_iterate_phdr(&find_image, &found);
    if (found.begin == nullptr) fail("no thread-local storage found");
    return Layout{&anchor - found.begin, found.size};
  }();
  char* begin = &anchor - layout.before_anchor;
  std::memset(begin, 0xFF, layout.size);
  return {begin, layout.size};
}

uint64_t launches = 0;
bool dry = false;

}  // namespace emulation

// Kernels and memsets that launchers have put on the stream since the library was loaded.
extern "C" __attribute__((visibility("default"))) uint64_t emulation_launches() { return emulation::launches; }

extern "C" __attribute__((visibility("default"))) void emulation_set_order(int order, uint64_t seed) {
  emulation::settings = {static_cast<emulation::Order>(order), seed};
}

// Whether launches are counted alone, with no block run: for grids of sizes that take the emulation too long.
extern "C" __attribute__((visibility("default"))) void emulation_set_dry(int dry) { emulation::dry = dry != 0; }
