// What runs on the box: a chest x-ray model exported for ExecuTorch, one picture. docs/examples/edge.md explains it.
//
//     edge_box MODEL.pte PICTURE.pgm SIDE RUNS
//
// Built against the runtime in the executorch wheel; edge.py has the command. Prints a line of JSON.
#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace {

std::string read_file(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// 0 is black and 1 is white.
std::vector<float> read_picture(const char* path, int side) {
  const std::string content = read_file(path);
  const std::string header = "P5 " + std::to_string(side) + " " + std::to_string(side) + " 255\n";
  if (content.compare(0, header.size(), header) != 0 || content.size() != header.size() + size_t(side) * side) {
    std::fprintf(stderr, "%s: not a PGM of %d x %d\n", path, side, side);
    std::exit(2);
  }
  std::vector<float> values;
  for (size_t i = header.size(); i < content.size(); ++i) {
    values.push_back(static_cast<unsigned char>(content[i]) / 255.0f);
  }
  return values;
}

long read_peak_kb() {
  const std::string status = read_file("/proc/self/status");
  return std::atol(status.c_str() + status.find("VmHWM:") + 6);
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 5) {
    std::fprintf(stderr, "edge_box MODEL.pte PICTURE.pgm SIDE RUNS\n");
    return 2;
  }
  const int side = std::atoi(arguments[3]);
  std::vector<float> picture = read_picture(arguments[2], side);
  executorch::extension::Module module(arguments[1]);
  const auto input = executorch::extension::from_blob(picture.data(), {1, 1, side, side});
  std::vector<double> times;
  float logit = 0;
  for (int run = 0; run <= std::atoi(arguments[4]); ++run) {
    const auto began = std::chrono::steady_clock::now();
    const auto found = module.forward(input);
    if (!found.ok()) {
      std::fprintf(stderr, "the model does not run: error %d\n", static_cast<int>(found.error()));
      return 1;
    }
    logit = found->at(0).toTensor().const_data_ptr<float>()[0];
    times.push_back(std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - began).count());
  }
  std::sort(times.begin(), times.end());
  std::printf("{\"logit\": %.6f, \"latency_ms\": %.3f, \"peak_memory_kb\": %ld}\n", logit, times[times.size() / 2],
              read_peak_kb());
}
