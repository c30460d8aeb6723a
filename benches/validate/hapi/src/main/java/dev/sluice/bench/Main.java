package dev.sluice.bench;

import ca.uhn.fhir.context.FhirContext;
import ca.uhn.fhir.context.support.DefaultProfileValidationSupport;
import ca.uhn.fhir.validation.FhirValidator;
import ca.uhn.fhir.validation.SingleValidationMessage;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.lang.management.ManagementFactory;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Map;
import java.util.TreeMap;
import org.hl7.fhir.common.hapi.validation.support.CommonCodeSystemsTerminologyService;
import org.hl7.fhir.common.hapi.validation.support.InMemoryTerminologyServerValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.SnapshotGeneratingValidationSupport;
import org.hl7.fhir.common.hapi.validation.support.ValidationSupportChain;
import org.hl7.fhir.common.hapi.validation.validator.FhirInstanceValidator;
import org.hl7.fhir.r5.utils.validation.constants.BestPracticeWarningLevel;

/**
 * HAPI's side of the comparison: validates the first Bundle of a folder, then answers commands on standard input, as
 * `src/worker.rs` says. CPU is that of the whole process, the collector and the compiler included.
 */
public final class Main {
  private final Map<String, String> bundles;
  private final FhirValidator validator;

  private Main(Path folder) throws IOException {
    bundles = read(folder);
    FhirContext context = FhirContext.forR4();
    var support = new ValidationSupportChain(
        new DefaultProfileValidationSupport(context),
        new CommonCodeSystemsTerminologyService(context),
        new InMemoryTerminologyServerValidationSupport(context),
        new SnapshotGeneratingValidationSupport(context));
    var instance = new FhirInstanceValidator(support);
    // dom-6 is a warning of this level.
    instance.setBestPracticeWarningLevel(BestPracticeWarningLevel.Warning);
    validator = context.newValidator().registerValidatorModule(instance);
  }

  public static void main(String[] args) throws IOException {
    Main main = new Main(Path.of(args[0]));
    main.validator.validateWithResult(main.bundles.values().iterator().next());
    System.out.println(cpu());
    var commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
    for (String command = commands.readLine(); command != null; command = commands.readLine()) {
      if (command.chars().allMatch(Character::isDigit)) {
        System.out.println(main.round(Integer.parseInt(command)));
      } else {
        main.findings(Path.of(command));
      }
    }
  }

  /** Seconds for so many passes over all Bundles. */
  private double round(int passes) {
    double start = cpu();
    for (int pass = 0; pass < passes; pass++) {
      for (String bundle : bundles.values()) {
        validator.validateWithResult(bundle);
      }
    }
    return cpu() - start;
  }

  private static Map<String, String> read(Path folder) throws IOException {
    Map<String, String> bundles = new TreeMap<>();
    try (var files = Files.newDirectoryStream(folder, "*.json")) {
      for (Path file : files) {
        bundles.put(file.getFileName().toString(), Files.readString(file));
      }
    }
    return bundles;
  }

  private void findings(Path folder) throws IOException {
    read(folder).forEach((name, bundle) -> {
      for (SingleValidationMessage message : validator.validateWithResult(bundle).getMessages()) {
        String severity = message.getSeverity().getCode();
        System.out.println(String.join("\t", name, severity, message.getLocationString(), message.getMessageId()));
      }
    });
    System.out.println();
  }

  private static double cpu() {
    var system = (com.sun.management.OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
    return system.getProcessCpuTime() / 1e9;
  }
}
