/** The build takes such a file in as its text. */
declare module "*.yaml" {
  const text: string;
  export default text;
}
