// The Python module _C: what the libraries were built for. Importing it loads the CPU kernels' registrations.
#include "common/cpu_capability.h"

#include <pybind11/pybind11.h>

#include "build_record.h"  // written by build_toolchain.write_record

namespace py = pybind11;

PYBIND11_MODULE(_C, m) {
  m.doc() = "Compiled CPU kernels of ddarts_ext.";
  m.def("build_info", [] { return py::str(DDARTS_BUILD_RECORD); }, "JSON: what this extension was built for.");
  m.def(
      "cpu_capability",
      [] { return py::str(ddarts::kCapabilityNames[static_cast<int>(ddarts::cpu_capability())]); },
      "The instruction set whose copy of the CPU kernels runs.");
}
