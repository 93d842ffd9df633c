#include "model/adapter.h"

#include <fmt/format.h>

#include "base/error.h"
#include "cli/command.h"
#include "cli/progress_bar.h"
#include "io/atomic_file.h"

namespace sennit::cli {
namespace {

struct AdapterCommand {
  std::string base, tuned, out;
  int64_t rank = 8;
  bool json = false;

  int run() const {
    io::AtomicFolder folder(out);
    const ExtractedAdapter a = extract_adapter(read_stored_model(base), read_stored_model(tuned), rank, folder.path());
    folder.commit();
    if (json)
      fmt::print("{}\n", json_text(Json{{"out", out}, {"rank", rank}, {"matrices", a.matrices}, {"left_out", a.left_out}}));
    else
      fmt::print("{}: {} matrices of rank {}; at most {:.3g} of a matrix's difference is left out\n", out, a.matrices,
                 rank, a.left_out);
    return 0;
  }
};

}  // namespace

void add_adapter(Commands& commands) {
  auto a = std::make_shared<AdapterCommand>();
  CLI::App& app = commands.add("adapter", "Write the difference of two models as a low-rank adapter (PEFT)",
                               [a] { return a->run(); });
  app.add_option("base", a->base, "the model before")->required();
  app.add_option("tuned", a->tuned, "the same model after training")->required();
  app.add_option("out", a->out, "a folder for adapter_config.json and adapter_model.safetensors")->required();
  app.add_option("--rank", a->rank, "of each matrix")
      ->capture_default_str()
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 16));
  add_json_flag(app, a->json);
  app.footer("Example: sennit adapter base_folder tuned_folder adapter --rank 8");
}

}  // namespace sennit::cli
